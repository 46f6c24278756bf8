from onebox import *  # noqa: F403 - the tasks of onebox are those of the project
