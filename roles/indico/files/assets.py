"""Compiles all scripts and styles of a release, as Indico does when a page first needs one. For the release's Python 2.7.

usage: assets.py SITE_PACKAGES URL_PATH MARK   (URL_PATH: that of the base URL, empty for the root; MARK: the file that says it is done)

Indico's own code asks the configuration and the database, which a release that is only being made has not. So the file that declares the bundles is read
beside them, with the same environment as WPBase (MaKaC/webinterface/pages/base.py) gives it.
"""

import ast
import glob
import os
import sys
import types

from webassets import Bundle, Environment

packages, url_path, mark = sys.argv[1:]
htdocs = os.path.join(packages, "htdocs")
target = os.path.join(htdocs, "static", "assets")


class Information(object):
    """What the bundles ask the database for. In debug mode Indico still compiles what it needs by itself."""

    getMaKaCInfoInstance = classmethod(lambda cls: cls())

    def isDebugActive(self):
        return False


def pretend(name, **contents):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)


def build(environment):
    environment.debug = False
    for bundle in environment:
        bundle.build(force=True, disable_cache=True)


def plugins():
    """Yield for each plugin its name, its directory and its bundles, which its pages declare one by one."""
    for directory, _directories, names in os.walk(packages):
        for name in names if os.path.isdir(os.path.join(directory, "htdocs")) else []:
            source = open(os.path.join(directory, name)).read() if name.endswith(".py") else ""
            if "PluginEnvironment(" not in source:
                continue
            calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
            plugin = [ast.literal_eval(call.args[0]) for call in calls if getattr(call.func, "id", "") == "PluginEnvironment"]
            bundles = {}
            for call in calls:
                if getattr(call.func, "attr", "") == "register" and getattr(getattr(call.args[-1], "func", None), "id", "") == "Bundle":
                    bundles[ast.literal_eval(call.args[0])] = eval(compile(ast.Expression(call.args[-1]), name, "eval"), {"Bundle": Bundle})
            yield plugin[0], directory, bundles


pretend("MaKaC")
pretend("MaKaC.common", HelperMaKaCInfo=Information)
pretend("indico.core")
pretend("indico.core.config", Config=None)
declared = {}
exec(compile(open(os.path.join(packages, "indico", "web", "assets.py")).read(), "assets.py", "exec"), declared)

os.umask(0o027)
core = Environment(target, url_path + "/static/assets/")
core.config["PYSCSS_STATIC_URL"] = url_path + "/static/"
core.config["PYSCSS_LOAD_PATHS"] = [os.path.join(htdocs, "sass", "lib", "compass"), os.path.join(htdocs, "sass")]
core.config["PYSCSS_DEBUG_INFO"] = False
core.append_path(htdocs, "/")
for kind in ("css", "js"):
    core.append_path(os.path.join(htdocs, kind), url_path + "/" + kind)
declared["register_all_js"](core)
declared["register_all_css"](core, "Default.css")
build(core)

for plugin, directory, bundles in plugins():
    environment = Environment(os.path.join(target, "plugins", plugin), url_path + "/static/assets/plugins/" + plugin)
    environment.append_path(os.path.join(directory, "htdocs"), os.path.join(url_path, plugin))
    for name in bundles:
        environment.register(name, bundles[name])
    build(environment)

# Browsers compare times, and one host's shall be another one's.
time = os.stat(os.path.join(packages, "indico", "web", "assets.py")).st_mtime
for directory, _directories, names in os.walk(target):
    for name in names:
        os.utime(os.path.join(directory, name), (time, time))
for old in glob.glob(os.path.join(target, ".compiled*")):
    os.unlink(old)
open(mark, "w").close()
os.utime(mark, (time, time))
