"""How far an upload has got, in words."""

from jig.volumes.tally import Tally


def test_what_was_there_is_not_said_to_be_sent() -> None:
    tally = Tally()
    assert (tally.sent(), tally.reached()) == ("0 B sent", "")
    tally.want(4096)
    tally.send(1024)
    assert (tally.sent(), tally.reached()) == ("1.0 KiB sent", ": 1.0 KiB of 4.0 KiB have arrived")
    tally.resume(2048)
    assert tally.sent() == "1.0 KiB sent, 2.0 KiB was there already"
    assert tally.reached() == ": 3.0 KiB of 4.0 KiB have arrived"
