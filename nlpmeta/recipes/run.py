"""Carry a recipe out: data, encoder, learner, training, checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from nlpmeta.checkpoint import Json, save_checkpoint
from nlpmeta.encoder.lora import add_adapter, load_adapter
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, learners
from nlpmeta.recipes.schema import Recipe
from nlpmeta.recipes.tasks import sampler_of, training_sampler
from nlpmeta.training import TrainResult, meta_train

_HELDOUT_SEED = 1_000_003  # held-out episodes stay the same when the seed of training changes


@dataclass(frozen=True)
class RecipeRun:
    """What became of a recipe."""

    result: TrainResult
    out: Path
    trainable: int


def run_recipe(
    recipe: Recipe, *, data_dir: Path | None = None, resume: bool = False, show_progress: bool = False
) -> RecipeRun:
    """Meta-train as the recipe says; the finished checkpoint, and the best so far while it runs, lie in ``out``.

    Raises:
        NLPMetaError: if data, encoder, learner or settings do not go together; before training starts.
    """
    out = Path(recipe.out)
    sampler = training_sampler(recipe.data, seed=recipe.seed, data_dir=data_dir)
    heldout = {part.name: sampler_of(part, seed=_HELDOUT_SEED, data_dir=data_dir) for part in recipe.heldout}
    learner = build_learner(recipe)
    facts = training_facts(recipe)

    def keep(step: int) -> None:
        save_checkpoint(learner, out, {**facts, "steps": step}, storage=recipe.storage)

    result = meta_train(
        learner,
        sampler,
        settings=recipe.settings(),
        out=out,
        evaluate=heldout,
        resume=resume,
        on_best=keep,
        show_progress=show_progress,
    )
    done: dict[str, Json] = {**facts, "steps": result.best_step, "heldout_accuracy": result.best_accuracy}
    save_checkpoint(learner, out, done, storage=recipe.storage)
    return RecipeRun(result, out, sum(w.numel() for w in learner.parameters() if w.requires_grad))


def build_learner(recipe: Recipe) -> Learner:
    """The learner of a recipe on its encoder, with fresh adapters or those of the checkpoint it starts from."""
    from nlpmeta.encoder.text_encoder import TextEncoder

    choice = recipe.encoder
    encoder = TextEncoder.from_pretrained(choice.name, revision=choice.revision, max_length=choice.max_length)
    if recipe.start is not None:
        load_adapter(encoder, Path(recipe.start))
    elif recipe.adapter is not None:
        add_adapter(encoder, recipe.adapter, seed=recipe.seed)
    try:
        return learners[recipe.learner](encoder, **recipe.learner_options)
    except TypeError as error:
        raise NLPMetaError(f"learner_options do not fit the method {recipe.learner!r}: {error}.") from error


def training_facts(recipe: Recipe) -> dict[str, Json]:
    """What a checkpoint says about its training: recipe, data sets and languages."""
    return {
        "recipe_digest": recipe.digest(),
        "recipe": recipe.model_dump(mode="json"),
        "sets": sorted({part.source for part in recipe.data}),
        "leave_out_langs": sorted({lang for part in recipe.data for lang in part.leave_out_langs}),
    }
