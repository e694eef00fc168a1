"""Results: collected as they come, printed as a table driver × assertion, kept as JSON, and as Markdown where it is asked for."""
import datetime
import json
import platform
import subprocess
from dataclasses import asdict, dataclass

from . import cache


@dataclass
class Result:
    suite: str
    driver: str
    # Protocol version and compression, with what else was special: `v5 lz4 tls`.
    cell: str
    assertion: str
    # "ok", "failed", or "-": does not apply.
    outcome: str
    detail: str


class Report:
    def __init__(self):
        self.results = []
        # The Markdown has what each result said, too.
        self.details = False

    def add(self, suite, driver, cell, assertion, outcome, detail=""):
        self.results.append(Result(suite, driver, cell, assertion, outcome, " ".join(str(detail).split())))
        mark = {"ok": "ok  ", "failed": "FAIL", "-": "-   "}[outcome]
        print(f"  {mark} {driver:<11}{cell:<20}{assertion:<12} {self.results[-1].detail[:300]}", flush=True)

    def failures(self):
        return [r for r in self.results if r.outcome == "failed"]

    def rows(self):
        """(suite, driver, cell) → {assertion: result}, in the order in which they came."""
        table = {}
        for result in self.results:
            table.setdefault((result.suite, result.driver, result.cell), {})[result.assertion] = result
        return table

    def table(self):
        names = sorted({r.assertion for r in self.results})
        width = max((len(f"{s} {d} {c}") for s, d, c in self.rows()), default=10)
        lines = [" " * width + "  " + "  ".join(f"{n:<7}" for n in names)]
        for (suite, driver, cell), found in self.rows().items():
            outcomes = "  ".join(f"{found[n].outcome if n in found else '':<7}" for n in names)
            lines.append(f"{f'{suite} {driver} {cell}':<{width}}  {outcomes}")
        return "\n".join(lines)

    def write(self):
        place = cache.RUN / "results.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps([asdict(r) for r in self.results], indent=1))
        return place

    def markdown(self, title, seconds):
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=cache.CHECKOUT).stdout.strip()
        names = sorted({r.assertion for r in self.results})
        lines = [f"## {title}", "",
                 f"{datetime.date.today()}, commit {commit}, {platform.system()} {platform.machine()}, {seconds / 60:.0f} min, "
                 f"{sum(r.outcome == 'ok' for r in self.results)} of {sum(r.outcome != '-' for r in self.results)} hold.", "",
                 "| suite | driver | cell | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
        for (suite, driver, cell), found in self.rows().items():
            cells = " | ".join(found[n].outcome if n in found else "" for n in names)
            lines.append(f"| {suite} | {driver} | {cell} | {cells} |")
        if self.details:
            lines += ["", "What each said:", ""]
            lines += [f"* {r.suite}, {r.driver} {r.cell}, {r.assertion}: {r.detail[:600]}" for r in self.results if r.outcome != "failed" and r.detail]
        if self.failures():
            lines += ["", "What failed said:", ""]
            lines += [f"* {r.suite}, {r.driver} {r.cell}, {r.assertion}: {r.detail[:300]}" for r in self.failures()]
        return "\n".join(lines) + "\n"
