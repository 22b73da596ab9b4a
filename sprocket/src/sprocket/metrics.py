"""What /metrics says, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter

from .job import Job
from .outcome import Outcome

OUTCOMES = ("done", "failed", "canceled", "dropped", "released")


class Metrics:
    """Counters of one worker process; only the main thread writes them."""

    def __init__(self) -> None:
        self.jobs: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.in_flight: set[Job] = set()
        self.predict_seconds_sum = 0.0
        self.predict_count = 0
        self.claim_errors = 0

    def count(self, outcome: Outcome) -> None:
        """Count a request over HTTP that has ended."""
        self.jobs[type(outcome).__name__.lower()] += 1

    def observe_predict(self, seconds: float) -> None:
        """Count one predict that has ended."""
        self.predict_seconds_sum += seconds
        self.predict_count += 1

    def render(self) -> str:
        """Give the text of /metrics."""
        age = max((job.progress_age_seconds() for job in self.in_flight), default=0.0)
        lines = [
            "# HELP requests_inflight Requests that this worker is working on.",
            "# TYPE requests_inflight gauge",
            f"requests_inflight {float(len(self.in_flight))}",
            "# HELP sprocket_jobs_total Requests that have ended, by how.",
            "# TYPE sprocket_jobs_total counter",
            *(f'sprocket_jobs_total{{outcome="{outcome}"}} {float(n)}' for outcome, n in self.jobs.items()),
            "# HELP sprocket_predict_seconds Time spent in predict.",
            "# TYPE sprocket_predict_seconds summary",
            f"sprocket_predict_seconds_sum {self.predict_seconds_sum:.6f}",
            f"sprocket_predict_seconds_count {float(self.predict_count)}",
            "# HELP sprocket_progress_age_seconds Time since the running predict started or last emitted info.",
            "# TYPE sprocket_progress_age_seconds gauge",
            f"sprocket_progress_age_seconds {age:.3f}",
            "# HELP sprocket_claim_errors_total Polls of the queue that failed.",
            "# TYPE sprocket_claim_errors_total counter",
            f"sprocket_claim_errors_total {float(self.claim_errors)}",
        ]
        return "\n".join(lines) + "\n"
