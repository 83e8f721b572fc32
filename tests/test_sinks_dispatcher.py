"""One sender that fails, or is defective, is tried again and stops nobody else."""

from runtime.sinks.dispatcher import Dispatcher
from runtime.sinks.interface import SendError
from runtime.sinks.journal import Journal
from tests.broker import until


class Scripted:
    """Fails as told, then works."""

    connected, refused = True, 0

    def __init__(self, *errors):
        self.errors, self.events = list(errors), []

    def connect(self):
        pass

    def send(self, events):
        if self.errors:
            raise self.errors.pop(0)
        self.events += events
        return len(events)

    def close(self):
        raise RuntimeError("also this")


def test_any_exception_is_told_and_tried_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("runtime.sinks.dispatcher.FIRST_WAIT_S", 0.01)
    journal = Journal(tmp_path, max_bytes=1 << 20, fsync=False)
    sender = Scripted(SendError("away"), KeyError("rig"), RecursionError("deep"))
    dispatcher = Dispatcher("scripted", journal.reader("scripted"), sender)
    journal.write({"id": "run-00000000"})
    dispatcher.notify()
    assert until(lambda: dispatcher.status().sent == 1)
    assert [event["id"] for event in sender.events] == ["run-00000000"]
    assert until(lambda: dispatcher.status().last_error is None)
    said = [record.getMessage() for record in caplog.records]
    assert any("away" in x for x in said)
    assert any("KeyError: 'rig'" in x for x in said)
    dispatcher.close()
    journal.close()


def test_after_its_end_a_reader_left_behind_writes_nothing(tmp_path):
    journal = Journal(tmp_path, max_bytes=1 << 20, fsync=False)
    reader = journal.reader("late")
    journal.write({"id": "run-00000000"})
    reader.read(1)
    journal.close()
    with open(tmp_path / "innocent", "w+b", buffering=0) as file:  # takes the cursor's number
        reader.acknowledge(1)
        assert file.seek(0, 2) == 0
