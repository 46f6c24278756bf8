"""A cloud's box is saved as an image, continues, and its image boots other boxes."""

from __future__ import annotations

from tests.conftest import Project
from tests.fakes.digitalocean.server import Server
from tests.providers.conftest import machines
from tests.providers.digitalocean.conftest import server
from tests.providers.digitalocean.test_machines import TOML, project, real_machines

__all__ = ["machines", "project", "real_machines", "server"]

JOB = "ls /opt; ls ~/work/results\n"


def test_saved_droplet_continues_and_its_image_boots_a_clean_box(
    server: Server, project: Project
) -> None:
    """
    What was installed by hand is in the image. The saved box keeps its work and
    host key, and a new box has neither.
    """
    assert 0 == project.inv("provision", timeout=300).code
    made = "sudo touch /opt/by-hand; mkdir -p results; echo 1 >results/old"
    assert 0 == project.inv("ssh", "--", made).code
    done = project.inv("image", "--from-box", "--as=geo", timeout=300)
    assert 0 == done.code, done.err
    assert "1\n" == project.inv("ssh", "--", "cat results/old").out
    assert 1 == len(server.account.droplets) == len(server.account.snapshots())
    assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code

    project.write("onebox.toml", TOML + '\n[image]\nuse = "geo"\n')
    project.write("job.sh", JOB)
    done = project.inv("run", timeout=300)
    assert (0, "by-hand\n") == (done.code, done.out), done.err
    assert not server.account.droplets
