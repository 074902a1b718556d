"""The models served here: what a layer holds, by this deployment's names and at its price."""

from dataclasses import replace

from handler import settings
from handler.billing import prices
from handler.billing.prices import Price
from handler.contract.models import Model
from handler.engine.manifest import Manifest
from handler.settings import Settings


def of_layer(manifest: Manifest, config: Settings) -> Model:
    """The model of a layer by this deployment's names and price. Raises SettingError for a bad alias."""
    aliases = dict.fromkeys(manifest.aliases)
    for pair in filter(None, (pair.strip() for pair in config.model_aliases.split(","))):
        alias, _, target = (part.strip() for part in pair.partition("="))
        if not alias or target not in (manifest.id, *manifest.aliases):
            raise settings.SettingError(f"MODEL_ALIASES={pair}: expected `alias={manifest.id}`, the model served here.")
        aliases[alias] = None
    aliases.pop(manifest.id, None)
    price = prices.settled(config, manifest.created)
    return Model(
        id=manifest.id,
        aliases=tuple(aliases),
        created=manifest.created,
        owned_by=manifest.owned_by,
        dimensions=manifest.dimensions,
        context=manifest.context,
        content_tokens=manifest.content_tokens,
        outputs=manifest.outputs,
        quantization=manifest.precision,
        weights=manifest.weights,
        revision=manifest.revision,
        description=manifest.description,
        input_per_mtok=price.input_per_mtok,
        batch_input_per_mtok=price.batch_input_per_mtok,
        priced_since=price.effective_at,
    )


def priced(model: Model, price: Price) -> Model:
    """The model at another price than the settings'."""
    return replace(
        model,
        input_per_mtok=price.input_per_mtok,
        batch_input_per_mtok=price.batch_input_per_mtok,
        priced_since=price.effective_at,
    )
