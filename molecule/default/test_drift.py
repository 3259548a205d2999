"""What a run predicts, does and leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lib import collection
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


# What happened to the host: the command that did it, the path or unit that a run puts right, and a part of the diff.
# In the order of the landscape's tasks.
DRIFT = {
    "a mode changed": ("chmod 0777 {prefix}/etc", "/opt/indico/etc", "mode: 0777"),
    "a unit file edited": (
        "sed -i s/^RestartSec=1/RestartSec=99/ /etc/systemd/system/indico-zeo@.service",
        "/etc/systemd/system/indico-zeo@.service",
        "RestartSec=99",
    ),
    "an owner changed": ("chown nobody {prefix}/db/main", "/opt/indico/db/main", "owner: nobody"),
    "a unit not enabled": ("systemctl disable indico-zeo@main", "indico-zeo@main.service", "at boot: disabled"),
    "a file edited": ("echo 'SanitizationLevel = 0' >> {prefix}/etc/indico.conf", "/opt/indico/etc/indico.conf", "SanitizationLevel = 0"),
    "the default site is back": (
        "ln -s ../sites-available/000-default.conf /etc/apache2/sites-enabled/000-default.conf",
        "/etc/apache2/sites-enabled/000-default.conf",
        "000-default.conf",
    ),
    "a link removed": ("rm /etc/apache2/sites-enabled/indico.conf", "/etc/apache2/sites-enabled/indico.conf", "kind: absent"),
    "a unit stopped": ("systemctl stop indico-scheduler", "indico-scheduler.service", "state: inactive"),
}


def test_check_names_exactly_the_drift_and_the_run_repairs_it(site: Site) -> None:
    for command, _name, _shown in DRIFT.values():
        site.run(command.format(prefix=site.prefix))
    drifted = [name for _command, name, _shown in DRIFT.values()]
    predicted = site.play("--check")
    assert predicted.returncode == 0, predicted.output
    # Apache's configuration drifted too, so it would be restarted; its unit comes after its files.
    assert predicted.touched() == [*drifted[:-1], "apache2.service", drifted[-1]]
    for _command, _name, shown in DRIFT.values():
        assert shown in predicted.diff()
    done = site.play()
    assert done.returncode == 0, done.output
    assert done.touched() == predicted.touched()
    site.browser().wait("/")
    for unit in site.units:
        site.wait_for_unit(unit)


def test_check_of_a_changed_variable_predicts_the_restarts_too(site: Site) -> None:
    """The files that will be new do not show on the host in check mode."""
    changed = {"zeo_transaction_timeout": 301, "scheduler_log_level": "DEBUG", "web_threads": 5, "indico_log_level": "DEBUG"}
    predicted = site.play("--check", **changed)
    assert predicted.returncode == 0, predicted.output
    assert {"indico-zeo@main.service", "apache2.service", "indico-scheduler.service"} <= set(predicted.touched())
    done = site.play(**changed)
    assert done.returncode == 0, done.output
    assert done.touched() == predicted.touched()
    assert site.play().touched() == predicted.touched()


def test_run_that_died_before_the_restart_is_finished_by_the_next(site: Site) -> None:
    """The new file is there, the old process still runs: no task changes the file any more, the unit is restarted all the same."""
    pid = site.main_pid("indico-scheduler.service")
    site.run(f"touch {site.prefix}/etc/logging.conf")
    run = site.play()
    assert run.returncode == 0, run.output
    # O8: Apache reads it on a reload, with its ports open.
    renewed = [(verb, unit) for results in run.changed.values() for result in results for verb in ("restarted", "reloaded") for unit in result.get(verb, [])]
    assert renewed == [("reloaded", "apache2.service"), ("restarted", "indico-scheduler.service")]
    assert site.main_pid("indico-scheduler.service") != pid


def test_existing_database_is_never_replaced(site: Site) -> None:
    """Installed anew over an old database, the site shows the old events."""
    inode = site.run(f"stat --format %i {site.prefix}/db/main/Data.fs")
    site.run(f"rm -r {site.prefix}/releases/* && systemctl stop apache2 indico-scheduler indico-zeo@main")
    run = site.play()
    assert run.returncode == 0, run.output
    assert site.run(f"stat --format %i {site.prefix}/db/main/Data.fs") == inode
    assert "Workshops" in site.browser().get("/").text


@pytest.mark.parametrize("origin", ["checkout", "archive"])
def test_a_fresh_checkout_and_the_built_archive_do_the_same(site: Site, tmp_path: Path, origin: str) -> None:
    """Either finds nothing to do on the host that this one made and repaired."""
    if origin == "checkout":
        run = site.play(cwd=collection.checkout(tmp_path))
    else:
        collection.install(collection.build(tmp_path), tmp_path)
        run = site.play(cwd=tmp_path, playbook="confops.indico.site")
    assert run.returncode == 0, run.output
    assert run.changed == {}
    assert run.tasks > 20
