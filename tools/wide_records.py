"""Write ``nlpmeta/sources/wide.json``, the catalogue records of the collection ``wide``, from its folder.

python tools/wide_records.py ../shared/data/wide

Facts only: names, languages, labels and splits of the files, and the table of README.md there (kind, licence, source,
note). No text goes into the records.
"""

import json
import re
import sys
from pathlib import Path

OUT = Path(__file__).parent.parent / "nlpmeta" / "sources" / "wide.json"
PUBLISHED = ("train", "dev", "test")
TAKEN = {"massive": "massive-more", "hwu64": "hwu64-thinned"}
"""Sets whose own names are those of other records."""
PAPERS = {
    "3i4k": "Cho et al. 2018, Speech Intention Understanding in a Head-final Language, arXiv:1811.04231",
    "arsarcasm": "Abu Farha and Magdy 2020, From Arabic Sentiment Analysis to Sarcasm Detection, OSACT 4",
    "brighter": "Muhammad et al. 2025, BRIGHTER: Bridging the Gap in Human-Annotated Textual Emotion Recognition, ACL",
    "cold": "Deng et al. 2022, COLD: A Benchmark for Chinese Offensive Language Detection, EMNLP, arXiv:2201.06025",
    "convabuse": "Cercas Curry et al. 2021, ConvAbuse: Data, Analysis, and Benchmarks, EMNLP",
    "davidson": "Davidson et al. 2017, Automated Hate Speech Detection and the Problem of Offensive Language, ICWSM",
    "edos": "Kirk et al. 2023, SemEval-2023 Task 10: Explainable Detection of Online Sexism, arXiv:2303.04222",
    "germeval2018": "Wiegand et al. 2018, Overview of the GermEval 2018 Shared Task on Offensive Language, KONVENS",
    "goemotions": "Demszky et al. 2020, GoEmotions: A Dataset of Fine-Grained Emotions, ACL, arXiv:2005.00547",
    "hwu64": "Liu et al. 2019, Benchmarking Natural Language Understanding Services, IWSDS, arXiv:1903.05566",
    "isarcasm": "Abu Farha et al. 2022, SemEval-2022 Task 6: iSarcasmEval, SemEval",
    "korean": "Moon et al. 2020, BEEP! Korean Corpus of Online News Comments for Toxic Speech, arXiv:2005.12503",
    "massive": "FitzGerald et al. 2022, MASSIVE, arXiv:2204.08582",
    "mlma": "Ousidhoum et al. 2019, Multilingual and Multi-Aspect Hate Speech Analysis, EMNLP, arXiv:1908.11049",
    "multilingual": "Röttger et al. 2022, Multilingual HateCheck, WOAH, arXiv:2206.09917",
    "nusawrites": "Cahyawijaya et al. 2023, NusaWrites, AACL, arXiv:2309.10661",
    "nusax": "Winata et al. 2023, NusaX: Multilingual Parallel Sentiment Dataset, EACL, arXiv:2205.15960",
    "sgd": "Rastogi et al. 2020, Towards Scalable Multi-domain Conversational Agents, AAAI, arXiv:1909.05855",
    "taxi1500": "Ma et al. 2023, Taxi1500: A Multilingual Dataset for Text Classification, arXiv:2305.08487",
    "toldbr": "Leite et al. 2020, Toxic Language Detection in Social Media for Brazilian Portuguese, arXiv:2010.04543",
    "vicomtech": "de Gibert et al. 2018, Hate Speech Dataset from a White Supremacy Forum, ALW, arXiv:1809.04444",
    "xed": "Öhman et al. 2020, XED: A Multilingual Dataset for Sentiment Analysis and Emotion Detection, COLING",
}
"""Papers by the first word of a set's name, where that is sure; the repository is named for every set."""
NOT_OF_ITS_FAMILY = {"korean_chatbot_theme"}


def main(folder: Path) -> None:
    """Write the records of all sets of the table.

    Raises:
        SystemExit: if the table and the folder do not name the same sets.
    """
    rows = list(table(folder / "README.md"))
    there = {each.name for each in folder.iterdir() if each.is_dir()}
    if {row["set"] for row in rows} != there:
        raise SystemExit(f"The table and the folder differ in {sorted(there ^ {row['set'] for row in rows})}.")
    records = [record(row, folder) for row in sorted(rows, key=lambda row: row["set"])]
    lines = ",\n".join("  " + json.dumps(each, ensure_ascii=False) for each in records)
    OUT.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def table(readme: Path) -> list[dict[str, str]]:
    """The rows of the table of sets, by the names of its columns."""
    lines = [line for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head = cells[0]
    return [dict(zip(head, row, strict=True)) for row in cells[2:]]


def record(row: dict[str, str], folder: Path) -> dict[str, object]:
    """One entry of the catalogue."""
    name = row["set"]
    files = sorted((folder / name).glob("*/*.jsonl"))
    splits = {file.stem for file in files}
    seen = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    labels = sorted({str(each["label"]) for each in seen})
    columns = {"ids": "id"} if names_sentences(seen) else {}
    place = {split: [f"wide/{name}/{{lang}}/{split}.jsonl"] for split in (*PUBLISHED, "all") if split in splits}
    mirror: dict[str, object] = {"files": place, "columns": columns}
    return {
        "name": TAKEN.get(name, name.replace("_", "-")),
        "title": title(name, row["kind"]),
        "collection": "wide",
        "kind": row["kind"],
        "task": f"{row['kind']}, {row['source'].split('@')[0]}",
        "licence": row["licence as stated"],
        "citation": citation(row),
        "notes": notes(row, splits),
        "languages": {file.parent.name: None for file in files},
        "label_names": labels,
        "mirror": mirror | ({"divide": True} if splits == {"all"} else {}),
    }


def names_sentences(seen: list[dict[str, object]]) -> bool:
    """Whether ids mean the same sentence in several languages: they recur, and then always with the same label."""
    labels: dict[object, set[object]] = {}
    langs: dict[object, set[object]] = {}
    for each in seen:
        labels.setdefault(each.get("id"), set()).add(each["label"])
        langs.setdefault(each.get("id"), set()).add(each["lang"])
    return None not in labels and max(map(len, labels.values())) == 1 and max(map(len, langs.values())) > 1


def title(name: str, kind: str) -> str:
    """The name in words, with the kind where it does not say it."""
    words = name.replace("_", " ")
    return words if kind.split()[-1] in words else f"{words} ({kind})"


def citation(row: dict[str, str]) -> str:
    """The paper, where it is known here, and where the texts were read."""
    paper = "" if row["set"] in NOT_OF_ITS_FAMILY else PAPERS.get(re.split("_", row["set"])[0], "")
    return f"{paper + '; ' if paper else ''}read from {row['source']}; licence read in {row['read in']}"


def notes(row: dict[str, str], splits: set[str]) -> str:
    """The note of the table, and what the splits are."""
    said = [row["note"]] if row["note"] else []
    if splits == {"all"}:
        said.append("No published split: train, dev and test are dealt out by a hash")
    return ". ".join(said or ["Published splits, thinned"]) + "."


if __name__ == "__main__":
    main(Path(sys.argv[1]))
