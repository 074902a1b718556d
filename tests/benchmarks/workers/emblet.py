"""Ours: the engine as the function loads it, with the layer in `options["layers"]` of the precision asked for."""

from handler.engine.engine import Engine
from handler.engine.layer import open_layer
from handler.settings import Settings
from tests.benchmarks.workers.serve import Loaded, Options, main


def load(options: Options) -> Loaded:
    settings = Settings(model_dir=options["layers"][options["precision"]], threads=options["threads"])
    engine = Engine.load(open_layer(settings), settings)
    return Loaded(lambda texts, _: engine.encode(texts))


if __name__ == "__main__":
    main(load)
