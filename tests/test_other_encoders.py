"""Encoders of other families, tiny and random: how they pool, what goes before a text, where adapters go."""

import json
import shutil
from inspect import signature

import numpy as np
import pytest
import torch
from conftest import TOPICS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from nlpmeta import AdapterSettings, FewShotClassifier, TextEncoder, add_adapter
from nlpmeta.cli import main
from nlpmeta.cli.process import loads_encoder
from nlpmeta.encoder.compiling import compiled_name, embedder
from nlpmeta.encoder.engines import GRAPH, CompiledEncoder, CompiledName
from nlpmeta.encoder.files import is_model_file, last_names, linear_layers
from nlpmeta.encoder.graphs import write_graph
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.encoder.merged import INNER
from nlpmeta.encoder.table import state_digest
from nlpmeta.encoder.views import ADAPTED, VIEWS, ScaledEncoder
from nlpmeta.encoder.weights import encoder_named, lasting_name, resolve
from nlpmeta.errors import NLPMetaError, UnknownNameError
from nlpmeta.training.recipe_files import load_recipe

WORDS = ["<unk>", "<s>", "</s>", "query", ":", *" ".join(TOPICS.values()).split()]
TEXTS = ["ball goal", "match team ball", "rice soup", "bread salt rice"]
LABELS = ["sport", "sport", "food", "food"]
SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 160,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MADE = {
    "modernbert": (ModernBertModel, ModernBertConfig, {"cls_token_id": 1, "sep_token_id": 2, **SPECIAL}),
    "xlm-r": (XLMRobertaModel, XLMRobertaConfig, SPECIAL),
    "decoder": (LlamaModel, LlamaConfig, {"num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}),
}
FOUND = {
    "modernbert": ["Wi", "Wo", "Wqkv"],
    "xlm-r": ["dense", "key", "query", "value"],
    "decoder": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
}


def save(kind, folder):
    """A model of the family; the decoder's tokenizer has no token to pad with."""
    model, config, options = MADE[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(config(**SMALL, **options)).save_pretrained(folder)
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    marks = {"unk_token": "<unk>", "eos_token": "</s>"} | ({} if kind == "decoder" else {"pad_token": "<unk>"})
    PreTrainedTokenizerFast(tokenizer_object=inner, **marks).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp(kind)) for kind in MADE}


@pytest.fixture(params=list(MADE))
def kind(request):
    return request.param


def written_beside(folder, tmp_path, **files):
    """A copy of a model folder with files of sentence-transformers in it."""
    copy = shutil.copytree(folder, tmp_path / "model")
    for name, content in files.items():
        path = copy / {"pooling": "1_Pooling/config.json", "prompts": "config_sentence_transformers.json"}[name]
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return str(copy)


def test_an_encoder_pools_as_its_family_wants_and_a_text_does_not_feel_its_neighbours(folders, kind):
    encoder = TextEncoder.from_pretrained(str(folders[kind]))
    assert encoder.pooling == ("last" if kind == "decoder" else "mean")
    together = encoder.encode(["ball", "rice soup bread salt", "match team"])
    alone = torch.cat([encoder.encode([text]) for text in ("ball", "rice soup bread salt", "match team")])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_each_pooling_is_what_numpy_makes_of_the_hidden_states(folders, kind, pooling):
    encoder = TextEncoder.from_pretrained(str(folders[kind]), pooling=pooling, normalise=False)
    tokens = encoder.tokenize(TEXTS)
    with torch.no_grad():
        hidden = [encoder.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy() for ids in tokens]
    by_hand = {"mean": lambda each: each.mean(0), "cls": lambda each: each[0], "last": lambda each: each[-1]}
    expected = np.stack([by_hand[pooling](each) for each in hidden])
    assert np.allclose(encoder.encode(TEXTS).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("written", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "max"}, "last"),
    ],
)
def test_what_sentence_transformers_wrote_beside_a_model_comes_before_its_family(folders, tmp_path, written, pooling):
    assert resolve(written_beside(folders["decoder"], tmp_path, pooling=written)).pooling == pooling


def test_the_prompt_for_classification_goes_before_every_text(folders, tmp_path):
    prompts = {"prompts": {"query": "query: ", "classification": "ball : "}, "default_prompt_name": "query"}
    encoder = TextEncoder.from_pretrained(written_beside(folders["xlm-r"], tmp_path, prompts=prompts))
    assert encoder.prefix == "ball : "
    plain = TextEncoder.from_pretrained(str(folders["xlm-r"]))
    assert torch.equal(encoder.encode(["rice"]), plain.encode(["ball : rice"]))
    assert TextEncoder.from_pretrained(encoder.files.name, prefix="").prefix == ""


def test_of_a_hub_repository_the_file_that_says_how_it_pools_is_needed_and_no_other_folder():
    assert is_model_file("1_Pooling/config.json")
    assert not is_model_file("2_Dense/config.json") and not is_model_file("1_Pooling/model.safetensors")


def test_a_name_carries_pooling_and_prefix_wherever_an_encoder_is_named(folders, monkeypatch):
    named = encoder_named(str(folders["xlm-r"]), pooling="cls", prefix="query: a/b&c?")
    found = resolve(named)
    assert (found.pooling, found.prefix, found.name) == ("cls", "query: a/b&c?", str(folders["xlm-r"]))
    assert resolve(str(folders["xlm-r"])).pooling == "mean"
    assert encoder_named("user/model") == "user/model"
    monkeypatch.chdir(folders["xlm-r"].parent)
    assert lasting_name(f"{folders['xlm-r'].name}?pooling=cls") == f"{folders['xlm-r']}?pooling=cls"
    with pytest.raises(UnknownNameError, match=r"'max'.*mean"):
        encoder_named("user/model", pooling="max")
    with pytest.raises(UnknownNameError, match="'normalise'"):
        resolve("user/model?pooling=cls&normalise=no")


def test_a_model_is_loaded_with_the_pooling_and_prefix_that_it_was_made_with(folders, tmp_path):
    named = encoder_named(str(folders["xlm-r"]), pooling="cls", prefix="query: ")
    classifier = FewShotClassifier("logistic", encoder=named).fit(TEXTS, LABELS)
    classifier.save_pretrained(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "nlpmeta.json").read_text())
    assert (manifest["encoder"]["pooling"], manifest["encoder"]["prefix"]) == ("cls", "query: ")
    again = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert again.learner_.encoder.pooling == "cls"
    assert np.allclose(again.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    other = FewShotClassifier("logistic", encoder=str(folders["xlm-r"])).fit(TEXTS, LABELS)
    assert not np.allclose(other.predict_proba(TEXTS), classifier.predict_proba(TEXTS), atol=1e-4)
    other.save_pretrained(tmp_path / "other")
    assert "pooling" not in json.loads((tmp_path / "other" / "nlpmeta.json").read_text())["encoder"]


def test_stored_embeddings_of_one_pooling_are_not_those_of_another(folders):
    digests = {
        state_digest(TextEncoder.from_pretrained(str(folders["xlm-r"]), pooling=each))
        for each in ("mean", "cls", "last")
    }
    assert len(digests) == 3


def test_a_mean_is_not_named_in_what_a_compiled_encoder_is_called(folders):
    last = TextEncoder.from_pretrained(str(folders["xlm-r"]), pooling="last")
    assert (found := compiled_name(last, "float32")) is None or found.pooling == "last"
    assert "pooling" not in CompiledName("0" * 64, ("frozen",), True).json()
    assert CompiledName("0" * 64, ("frozen",), True, pooling="cls").json()["pooling"] == "cls"


def test_adapters_go_into_every_linear_layer_of_the_family_unless_modules_are_named(folders, kind):
    encoder = TextEncoder.from_pretrained(str(folders[kind]))
    assert last_names(linear_layers(encoder.backbone)) == FOUND[kind]
    before = encoder.encode(TEXTS)
    add_adapter(encoder, AdapterSettings(rank=2, alpha=4), seed=0)
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in adapter_weights(encoder)}
    assert sorted(adapted) == FOUND[kind]
    assert torch.allclose(encoder.encode(TEXTS), before, atol=1e-6)
    with torch.no_grad():
        for weight in adapter_weights(encoder).values():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    apart = encoder.embed_tokens(encoder.tokenize(TEXTS))  # separate adapters, and merged ones
    assert torch.allclose(encoder.encode(TEXTS), apart.detach(), atol=1e-4)
    assert not torch.allclose(encoder.encode(TEXTS), before, atol=1e-3)


def test_lower_layers_are_a_sound_model_of_the_family_and_read_in_one_pass_or_by_themselves(folders, kind, tmp_path):
    encoder = TextEncoder.from_pretrained(str(folders[kind]))
    add_adapter(encoder, AdapterSettings(rank=2, alpha=4), seed=0)
    with torch.no_grad():
        for weight in adapter_weights(encoder).values():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    lower = encoder.merged(INNER).backbone
    lower.save_pretrained(tmp_path / "lower")  # which validates its configuration
    assert json.loads((tmp_path / "lower" / "config.json").read_text())["num_hidden_layers"] == 1
    views = ScaledEncoder(encoder, VIEWS)
    together = views.encode(TEXTS)
    alone = views.select([INNER]).encode(TEXTS)
    torch.testing.assert_close(together[:, views.columns(INNER)], alone)
    assert not torch.allclose(alone, together[:, views.columns(ADAPTED)], atol=1e-3)
    assert encoder.backbone.config.num_hidden_layers == SMALL["num_hidden_layers"]


def test_modules_that_are_named_are_taken_and_unknown_ones_refused_with_those_that_there_are(folders):
    encoder = TextEncoder.from_pretrained(str(folders["decoder"]))
    with pytest.raises(NLPMetaError, match=r"named query or key; it has down_proj, .*v_proj"):
        add_adapter(encoder, AdapterSettings(modules=("query", "key")), seed=0)
    encoder = TextEncoder.from_pretrained(str(folders["decoder"]))
    add_adapter(encoder, AdapterSettings(rank=2, modules=("q_proj",), layers=1), seed=0)
    assert {name.split(".lora_")[0] for name in adapter_weights(encoder)} == {"layers.1.self_attn.q_proj"}


def test_one_command_meta_trains_from_another_encoder_and_its_checkpoint_is_used_like_any_other(
    folders, kind, tmp_path, capsys
):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "steps: 2\nwarmup: 0\neval_every: 2\nadapter: {rank: 2}\ndata:\n"
        "  - {source: starter, langs: [sw], n_way: 3, n_shot: 1, n_query: 1}\n"
    )
    assert main(["train", str(recipe), f"encoder.name={folders[kind]}", f"out={tmp_path / 'run'}"]) == 0
    assert "memory" in capsys.readouterr().err.lower()  # the forecast
    classifier = FewShotClassifier("prototypical", checkpoint=str(tmp_path / "run")).fit(TEXTS, LABELS)
    assert classifier.learner_.encoder.pooling == ("last" if kind == "decoder" else "mean")
    assert classifier.predict(TEXTS).shape == (4,)


def test_a_recipe_names_pooling_and_prefix_and_says_nothing_of_them_by_default(folders):
    plain = load_recipe("protonet-tiny", [])
    assert plain.encoder.pooling is None and plain.adapter.modules is None
    named = load_recipe("protonet-tiny", ["encoder.pooling=cls", "encoder.prefix='query: '"])
    assert (named.encoder.pooling, named.encoder.prefix) == ("cls", "query: ")
    assert named.digest() != plain.digest()
    with pytest.raises(NLPMetaError, match="pooling"):
        load_recipe("protonet-tiny", ["encoder.pooling=max"])


def test_every_command_that_takes_an_encoder_takes_its_pooling_and_prefix_and_no_other_does():
    import typer

    from nlpmeta.cli import app

    commands = typer.main.get_command(app).commands
    options = {name: {opt for each in command.params for opt in each.opts} for name, command in commands.items()}
    naming = {name for name, each in options.items() if "--encoder" in each}
    assert naming == {"adapt", "bench", "classify", "evaluate", "serve"}
    assert {name for name, each in options.items() if {"--pooling", "--prefix"} <= each} == naming

    def plain(texts: list[str], *, quiet: bool = False) -> None:
        """Takes no encoder."""

    assert signature(loads_encoder(plain)) == signature(plain)


def test_adapt_and_classify_read_with_the_pooling_and_prefix_of_the_command_line(folders, tmp_path, table, capsys):
    named = ["--encoder", str(folders["xlm-r"]), "--pooling", "last", "--prefix", "query: "]
    assert (
        main(["adapt", "--data", str(table), "--shots", "2", "--draws", "1", "--out", str(tmp_path / "m"), *named]) == 0
    )
    encoder = FewShotClassifier.from_pretrained(tmp_path / "m").learner_.encoder
    assert (encoder.pooling, encoder.prefix) == ("last", "query: ")
    assert main(["classify", "--labels", "ball,rice", "ball goal", "--method", "prototypical", *named]) == 0
    assert main(["classify", "--labels", "ball,rice", "ball goal", *named[:2], "--pooling", "max"]) == 2
    assert "cls, last, mean" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_compiled_encoder_and_exports_pool_alike(folders, tmp_path, pooling):
    pytest.importorskip("onnxruntime")
    named = encoder_named(str(folders["xlm-r"]), pooling=pooling)
    classifier = FewShotClassifier("logistic", encoder=named).fit(TEXTS, LABELS)
    encoder = classifier.learner_.encoder
    plain = encoder.encode(TEXTS)
    write_graph(embedder(encoder), tmp_path / GRAPH, output="embeddings")
    compiled = CompiledEncoder(tmp_path, {"blank": 0}).embed(encoder.tokenize(TEXTS))
    assert np.allclose(compiled, plain.numpy(), atol=1e-5)
    from nlpmeta.export import export

    for form in ("transformers", "sentence-transformers", "onnx"):
        export(classifier, tmp_path / form, form)  # which compares probabilities itself
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(tmp_path / "sentence-transformers"), device="cpu").encode(TEXTS)
    assert np.allclose(theirs, plain.numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_decoder_without_a_token_to_pad_with_is_exported(folders, tmp_path):
    from nlpmeta.export import export

    classifier = FewShotClassifier("logistic", encoder=str(folders["decoder"])).fit(TEXTS, LABELS)
    export(classifier, tmp_path / "transformers", "transformers")  # which compares probabilities itself
    assert (tmp_path / "transformers" / "model.safetensors").is_file()


def test_an_encoder_that_was_built_in_memory_pools_by_the_mean_unless_told(encoder):
    assert isinstance(encoder.backbone, BertModel) and isinstance(encoder.backbone.config, BertConfig)
    last = TextEncoder(encoder.backbone, encoder.tokenizer, max_length=32, pooling="last")
    assert encoder.pooling == "mean" and not torch.allclose(last.encode(TEXTS), encoder.encode(TEXTS), atol=1e-3)
