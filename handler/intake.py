"""The inputs of a request, text or token ids, as the engine takes them, and every refusal that needs the tokenizer."""

import logging
from dataclasses import replace

from handler.contract import embeddings, errors, inputs
from handler.contract.embeddings import EmbeddingRequest, Rules
from handler.engine import cl100k, prompts
from handler.engine.budget import Budget
from handler.engine.cl100k import Cl100k
from handler.engine.layer import Layer
from handler.engine.manifest import CL100K
from handler.engine.prompts import Bounds, Prompts, TextTooLongError, TooManyTokensError
from handler.engine.tokens import Tokens, UnknownTokenError
from handler.settings import Settings

log = logging.getLogger(__name__)


class Intake:
    """What a deployment makes of inputs. `rules`: what it asks of a request; `ids_are`: what token ids are taken for,
    `cl100k`, `model` or `reject`."""

    def __init__(self, config: Settings, layer: Layer) -> None:
        self.rules = Rules(reject_empty=config.empty_input == "reject", truncate=config.truncate == "true")
        self.ids_are = config.token_arrays
        if self.ids_are == "cl100k" and CL100K not in layer.manifest.files:
            log.warning("%s was built without %s: token ids in a request get a 400", layer.manifest.id, CL100K)
            self.ids_are = "reject"
        if self.ids_are == "reject":
            self.rules = replace(self.rules, token_arrays=False)
        self._cl100k = Cl100k(layer.folder)
        self._control_ids = layer.manifest.control_ids

    def prompts(self, tokens: Tokens, request: EmbeddingRequest, budget: Budget) -> Prompts:
        """What is to be run. Raises 400 where an id means nothing, or where an input, or all of them, have more tokens
        than may be, without the specials: that is the number which is limited and billed. Raises LateError."""
        model = request.model
        try:
            return self._prompts(tokens, request, budget)
        except UnknownTokenError as error:
            vocabulary = cl100k.NAME if self.ids_are == "cl100k" else f"the text vocabulary of {model.id}"
            raise errors.TOKEN_ID.error(
                param=f"input[{error.index}]",
                i=error.index,
                id=str(error.token),
                p=error.position,
                vocabulary=vocabulary,
            ) from None
        except TextTooLongError as error:
            raise errors.CONTEXT_LENGTH.error(
                param=f"input[{error.index}]",
                i=error.index,
                n=error.tokens,
                context=model.context,
                content=model.content_tokens,
                special=tokens.special_tokens,
            ) from None
        except TooManyTokensError as error:
            raise errors.MAX_TOKENS.error(param="input", n=error.tokens, most=embeddings.MAX_TOKENS) from None

    def _prompts(self, tokens: Tokens, request: EmbeddingRequest, budget: Budget) -> Prompts:
        bounds = Bounds(request.model.content_tokens, embeddings.MAX_TOKENS, request.truncate)
        if not request.arrays:
            return prompts.of_texts(tokens, request.texts, bounds, budget)
        if self.ids_are == "cl100k":
            return prompts.of_cl100k(tokens, self._cl100k, request.arrays, bounds, budget)
        contents = tokens.contents(request.arrays, self._control_ids)
        if self.rules.reject_empty and [] in contents:  # the special tokens of a text around nothing
            raise inputs.empty_string(contents.index([]))
        return prompts.of_contents(tokens, contents, bounds, budget)
