import resource

import pytest
import torch
from torch import nn

from prediction.checkpoints import NetworkSpec, load_checkpoint, load_weights, save_checkpoint
from verse_utils.errors import UserError

SPEC = NetworkSpec("UNet", 1, 1, (16, 16, 16))


def test_what_is_written_is_read(tmp_path):
    network = nn.Linear(3, 2)
    weights = network.state_dict()
    save_checkpoint(tmp_path / "run" / "last.pt", SPEC, weights, {"task": "heatmap"}, epoch=4)
    content = load_checkpoint(tmp_path / "run" / "last.pt")
    assert content["network"] == SPEC and content["settings"] == {"task": "heatmap"} and content["epoch"] == 4
    torch.testing.assert_close(content["weights"], network.state_dict())


def test_the_same_network_makes_the_same_bytes(tmp_path):
    """So that a hash tells whether a network that was made again is the same; torch notes the name of a path."""
    weights = nn.Linear(3, 2).state_dict()
    for name in ("last.pt", "best.pt"):
        save_checkpoint(tmp_path / name, SPEC, weights, {"task": "heatmap"})
    assert (tmp_path / "last.pt").read_bytes() == (tmp_path / "best.pt").read_bytes()


def test_a_full_disk_is_one_line_and_the_checkpoint_of_before_stays(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, SPEC, nn.Linear(3, 2).state_dict(), {}, epoch=1)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # a file's most bytes
    try:
        with pytest.raises(UserError, match=r"last\.pt: can't be written \(.*disk full.*\); make room"):
            save_checkpoint(path, SPEC, nn.Linear(1000, 200).state_dict(), {}, epoch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_weights_of_a_network_that_tells_less_apart_fill_all_but_the_head(tmp_path):
    """Of a localiser that finds the spine for one that names vertebrae."""
    options = {"channels": (4, 8, 16)}
    first, names = (NetworkSpec("UNet", 1, count, (16, 16, 16), options) for count in (1, 27))
    source, network = first.build(), names.build()
    save_checkpoint(tmp_path / "best.pt", first, source.state_dict(), {"task": "heatmap"})
    (head,) = network.heads()
    before = head.weight.detach().clone()
    load_weights(tmp_path / "best.pt", names, network)
    torch.testing.assert_close(head.weight.detach(), before)
    own = network.state_dict()
    same = [name for name, tensor in source.state_dict().items() if torch.equal(own[name], tensor)]
    assert len(same) == len(own) - 2  # weight and bias of the head
    other = NetworkSpec("UNet", 1, 27, (16, 16, 16), {"channels": (4, 8, 32)})
    with pytest.raises(UserError, match="give one of the same model and options"):
        load_weights(tmp_path / "best.pt", other, other.build())
