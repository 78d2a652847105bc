"""The previous release, whose processes run beside those of this release during a rollout."""

PREVIOUS_RELEASE = "ec675af57530801509509de5ec62152476278084"
"""Id of the last commit without `OrderHistory` and the apps `sales` and `fulfilment`.

After each release, set it to the released commit. The tests of rollouts start the processes of this commit, and newer
migrations must suit these processes. The commit needs the same versions of packages as this release, so its code runs
on the packages of this release.
"""
