"""Prints results/shipped.json as the Markdown table of the README.

python benchmarks/table.py
"""

import json
from pathlib import Path

SETS = {
    ("injongo", "swa"): "Injongo Swahili, 40 intents",
    ("massive", "sw-KE"): "MASSIVE Swahili, 60 intents",
    ("sib200", "swh_Latn"): "SIB-200 Swahili, 7 topics",
    ("injongo", "kin"): "Injongo Kinyarwanda, 40 intents",
    ("injongo", "zul"): "Injongo Zulu, 40 intents",
    ("injongo", "yor"): "Injongo Yoruba, 40 intents",
    ("banking77", "en"): "BANKING77, 77 intents",
    ("sms-spam", "en"): "SMS spam, 2 classes",
}
FROZEN, OURS = ("logistic", "ridge"), "auto@default"


def percent(interval: dict[str, float]) -> str:
    """``84.0 ± 1.2``."""
    return f"{100 * interval['mean']:.1f} ± {100 * interval['ci95']:.1f}"


def main() -> None:
    rows = json.loads(Path("results/shipped.json").read_text(encoding="utf-8"))["rows"]
    cell = {(row["data"], row["lang"], row["n_shot"], row["method"]): row for row in rows}
    print("| task | shots | logistic, frozen | ridge, frozen | nlpmeta | difference to logistic |")
    print("|---|---|---|---|---|---|")
    for (data, lang), title in SETS.items():
        for shot in sorted({key[2] for key in cell if key[:2] == (data, lang)}):
            frozen = [percent(cell[data, lang, shot, method]["accuracy"]) for method in FROZEN]
            ours = cell[data, lang, shot, OURS]
            gain = {name: 100 * value for name, value in ours["difference"]["accuracy"].items()}
            said = f"{gain['mean']:+.1f} ({gain['low']:.1f} to {gain['high']:.1f})"
            print(f"| {title} | {shot} | {frozen[0]} | {frozen[1]} | {percent(ours['accuracy'])} | {said} |")


if __name__ == "__main__":
    main()
