"""Training speed beside TRL's, on the same rows: ``make bench-train``. One JSON document goes to standard output.

Peers take turns, epoch by epoch, in processes of their own; the first epoch of each warms up. Medians of five. A row's
tokens and labels are made once and given to all. Rates count the tokens of the rows (``effective``): padding and
repeated prefixes are the engine's affair. --data FOLDER names where banking77 and gsm8k lie.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tunesmith.catalog.fetch import install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.core.settings import load_settings
from tunesmith.data.formats import ChatRow, Message
from tunesmith.data.read import read_rows
from tunesmith.data.tokens import RowTokenizer, TokenSequence

HERE = Path(__file__).parent
SYSTEM = (
    "You are the duty clerk of a small school. Children send you sums in words. Work out what is asked, write down the "
    "last step of the working and the result, nothing else, and never guess: a sum that cannot be done is sent back "
    "with one question. Use plain digits, name the unit where there is one, and put the result on its own line behind "
    "four hash signs, as the school has always done."
)
PEERS = {
    "tunesmith": ("ours", "auto"),
    "tunesmith float32": ("ours", "float32"),
    "trl tuned": ("trl", "tuned"),
    "trl shipped": ("trl", "shipped"),
}


def main() -> None:
    options = parse_options()
    settings = load_settings()
    base = install_base_model(settings, embedded_model().id, lambda text: print(text, file=sys.stderr))
    report: dict[str, Any] = {"load_before": os.getloadavg(), "repeats": options.repeats, "cases": {}}
    for name, (sequences, batch_size) in cases(RowTokenizer.from_dir(base), options.data).items():
        if not options.case or name in options.case:
            report["cases"][name] = run_case(base, sequences, batch_size, options)
            print(json.dumps({name: report["cases"][name]}, indent=1), file=sys.stderr, flush=True)
    print(json.dumps(report, indent=1))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", action="append", help="only this case (may be given again)")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="only this peer (may be given again)")
    return parser.parse_args()


def cases(tokenizer: RowTokenizer, data: Path) -> dict[str, tuple[list[TokenSequence], int]]:
    """Rows of the three cases and their batch size: no prefix in common, about 80 of 165 tokens, 574 of 600."""
    short = short_answers(tokenizer, data / "foundry/gsm8k/chat_train.jsonl", 24)
    return {
        "no shared prefix": (without_system(short), 8),
        "short shared prefix": (short, 8),
        "banking77": (encode(tokenizer, data / "banking77/train.jsonl", 16), 16),
    }


def encode(tokenizer: RowTokenizer, file: Path, num_rows: int) -> list[TokenSequence]:
    rows = (row for _, row in zip(range(num_rows), read_rows(file), strict=False))
    return [sequence for line, row in rows for sequence in tokenizer.encode_row(row, line)]


def short_answers(tokenizer: RowTokenizer, file: Path, num_rows: int) -> list[TokenSequence]:
    """Questions under a longer system prompt, answered by the last lines of their solutions."""
    out = []
    for line, row in read_rows(file):
        question, answer = row.messages[1], row.messages[2]
        short = "\n".join(answer.text().splitlines()[-2:])
        messages = [Message("system", SYSTEM), question, Message("assistant", short)]
        out += tokenizer.encode_row(ChatRow(messages), line)
        if len(out) == num_rows:
            break
    return out


def without_system(sequences: list[TokenSequence]) -> list[TokenSequence]:
    """Without the tokens that all rows begin with."""
    first = sequences[0].token_ids
    shared = min(
        next(i for i, (a, b) in enumerate(zip(first, s.token_ids, strict=False)) if a != b) for s in sequences[1:]
    )
    return [TokenSequence(s.line, s.token_ids[shared:], s.is_trained[shared:]) for s in sequences]


def run_case(
    base: Path, sequences: list[TokenSequence], batch_size: int, options: argparse.Namespace
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        rows_file = Path(folder) / "rows.json"
        rows_file.write_text(json.dumps([labelled(sequence) for sequence in sequences]))
        names = [name for name in PEERS if not options.peer or name in options.peer]
        peers = {name: start(name, base, rows_file, batch_size, options.repeats + 1) for name in names}
        times: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(options.repeats + 1):
            for name, peer in peers.items():
                times[name].append(turn(peer))
        for peer in peers.values():
            peer.stdin.close()
            peer.wait()
    return summary(sequences, times)


def labelled(sequence: TokenSequence) -> dict[str, list[int]]:
    pairs = zip(sequence.token_ids, sequence.is_trained, strict=True)
    return {"input_ids": sequence.token_ids.tolist(), "labels": [token if learn else -100 for token, learn in pairs]}


def start(name: str, base: Path, rows_file: Path, batch_size: int, epochs: int) -> subprocess.Popen[str]:
    side, mode = PEERS[name]
    python = sys.executable if side == "ours" else str(HERE.parent / ".bench-venv" / "bin" / "python")
    script = HERE / ("train_ours.py" if side == "ours" else "train_peer_trl.py")
    command = [python, str(script), str(base), str(rows_file), str(batch_size), mode, str(epochs)]
    environ = os.environ | ({"GOMP_SPINCOUNT": "5000"} if side == "ours" else {})  # as the trainer sets it
    return subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def turn(peer: subprocess.Popen[str]) -> dict[str, Any]:
    """Let one peer train one epoch while the others wait."""
    while answer(peer) != "ready":
        pass
    peer.stdin.write("go\n")
    peer.stdin.flush()
    return answer(peer)


def answer(peer: subprocess.Popen[str]) -> Any:
    while line := peer.stdout.readline():
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            continue  # a library's chatter
    raise SystemExit(f"a peer ended early: {peer.args}")


def summary(sequences: list[TokenSequence], times: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    num_tokens = sum(len(sequence.token_ids) for sequence in sequences)
    out: dict[str, Any] = {
        "rows": len(sequences),
        "tokens": num_tokens,
        "supervised": sum(s.num_supervised_tokens for s in sequences),
    }
    for name, epochs in times.items():
        seconds = [epoch["s"] for epoch in epochs[1:]]
        median = statistics.median(seconds)
        out[name] = {
            "s": [round(value, 3) for value in seconds],
            "effective_tokens_per_s": round(num_tokens / median, 1),
            "examples_per_s": round(len(sequences) / median, 2),
            "peak_memory_gb": round(epochs[-1]["peak_bytes"] / 1e9, 2),
        }
        if "flop" in epochs[0]:
            rate = epochs[0]["flop"] / median
            out[name]["dtype"] = epochs[0]["dtype"]
            for kind in ("float32", "bfloat16"):
                gemm = max(epoch["gemm"][kind] for epoch in epochs)  # the peak, whatever disturbed a probe
                out[name][f"share_of_{kind}_gemm"] = round(rate / gemm, 3)
    for name in times:
        for peer in ("trl tuned", "trl shipped"):
            if name.startswith("tunesmith") and peer in times:
                ratio = out[name]["effective_tokens_per_s"] / out[peer]["effective_tokens_per_s"]
                out[name][f"times_{peer.replace(' ', '_')}"] = round(ratio, 2)
                out[name][f"memory_share_of_{peer.replace(' ', '_')}"] = round(
                    out[name]["peak_memory_gb"] / out[peer]["peak_memory_gb"], 2
                )
    return out


if __name__ == "__main__":
    main()
