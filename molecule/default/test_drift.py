"""What a run predicts, does and leaves alone."""

from __future__ import annotations

import pytest

from tests.lib.site import Site


def test_second_run_changes_nothing(site: Site) -> None:
    run = site.play()
    assert run.returncode == 0, run.output
    assert run.changed == {}
    assert run.tasks > 20


def test_check_of_a_converged_host_predicts_nothing(site: Site) -> None:
    run = site.play("--check")
    assert run.returncode == 0, run.output
    assert run.changed == {}


DRIFT = {
    "a file edited": (
        "echo 'SanitizationLevel = 0' >> {prefix}/etc/indico.conf",
        ["/opt/indico/etc/indico.conf"],
        "SanitizationLevel = 0",
    ),
    "a mode changed": ("chmod 0777 {prefix}/etc", ["/opt/indico/etc"], "mode: 0777"),
    "an owner changed": ("chown nobody {prefix}/db/main", ["/opt/indico/db/main"], "owner: nobody"),
    "a link removed": ("rm /etc/apache2/sites-enabled/indico.conf", ["/etc/apache2/sites-enabled/indico.conf"], "kind: absent"),
    "the default site is back": (
        "ln -s ../sites-available/000-default.conf /etc/apache2/sites-enabled/000-default.conf",
        ["/etc/apache2/sites-enabled/000-default.conf"],
        "000-default.conf",
    ),
    "a unit stopped": ("systemctl stop indico-scheduler", [], "state: inactive"),
    "a unit not enabled": ("systemctl disable indico-zeo@main", [], "at boot: disabled"),
    "a unit file edited": (
        "sed -i s/^RestartSec=1/RestartSec=99/ /etc/systemd/system/indico-zeo@.service",
        ["/etc/systemd/system/indico-zeo@.service"],
        "RestartSec=99",
    ),
}


@pytest.mark.parametrize("drift", DRIFT)
def test_check_names_the_drift_and_the_run_repairs_it(site: Site, drift: str) -> None:
    command, paths, shown = DRIFT[drift]
    site.run(command.format(prefix=site.prefix))
    predicted = site.play("--check")
    assert predicted.returncode == 0, predicted.output
    assert predicted.paths() == paths
    assert shown in predicted.diff()
    done = site.play()
    assert done.returncode == 0, done.output
    assert done.paths() == paths
    assert set(predicted.changed) <= set(done.changed)
    site.browser().wait("/")
    for unit in site.units:
        site.wait_for_unit(unit)


def test_run_that_died_before_the_restart_is_finished_by_the_next(site: Site) -> None:
    """The new file is there, the old process still runs: no task changes the file any more, the unit is restarted all the same."""
    pid = site.main_pid("indico-scheduler.service")
    site.run(f"touch {site.prefix}/etc/logging.conf")
    run = site.play()
    assert run.returncode == 0, run.output
    restarted = [unit for results in run.changed.values() for result in results for unit in result.get("restarted", [])]
    assert restarted == ["apache2.service", "indico-scheduler.service"]
    assert site.main_pid("indico-scheduler.service") != pid
    assert site.play().changed == {}


def test_existing_database_is_never_replaced(site: Site) -> None:
    """Installed anew over an old database, the site shows the old events."""
    inode = site.run(f"stat --format %i {site.prefix}/db/main/Data.fs")
    site.run(f"rm -r {site.prefix}/releases/* && systemctl stop apache2 indico-scheduler indico-zeo@main")
    run = site.play()
    assert run.returncode == 0, run.output
    assert site.run(f"stat --format %i {site.prefix}/db/main/Data.fs") == inode
    assert "Workshops" in site.browser().get("/").text
