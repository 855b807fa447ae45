"""Prove a store: the conformance suite, and a clock to turn by hand. Needs no test runner.

from afk.messaging.testing import CHECKS, Subject

class Mine(Subject):
    capabilities = Capabilities(durability="disk", shared=True)

    def store(self, clock=None):
        return MyStore(self.folder / "mail.db", clock=clock or time.time)

@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, tmp_path):
    await check(Mine(tmp_path))
"""

from .checks import CHECKS
from .clock import FakeClock
from .subject import Check, Subject

__all__ = ["CHECKS", "Check", "FakeClock", "Subject"]
