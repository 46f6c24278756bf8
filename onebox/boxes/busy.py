"""Say what the user can type if another command or a job uses the box."""

from __future__ import annotations

from onebox.store.lock_holder import LockHolder


def next_steps(
    holder: LockHolder | None,
    *,
    starts_job: bool,
    only: bool = False,
    task: str = "run",
) -> str:
    """
    Return the commands that help, one a line.

    Args:
        holder: The command that uses the box; None if a job or this process does.

        starts_job: Whether the refused command line runs a job and what it needs.

        only: Whether it has `--only`, and needs this box.

        task: The task that runs the job, "run" or "map".
    """
    lines = [f"inv {task} --queue waits for it, then runs"]
    if task == "run":
        # Units have the same folders on each box, so they need another --into, too.
        lines += ["inv run --name=second runs on another box"]
    if only:
        lines = [f"inv {task} --only --queue waits for it, then runs"]
    elif not starts_job:
        lines = ["wait for it, or take another box: --name=second"]
    if holder is not None and holder.is_notebook:
        lines += [f"Ctrl-C in the terminal of the notebook (pid {holder.pid}) ends it"]
    elif starts_job or only:
        lines += ["inv logs follows the job, inv cancel stops it"]
    else:
        lines += ["inv status, inv logs and inv cancel work now"]
    return "\n".join(lines)
