"""Two instances of Syncthing that know each other's address and nobody else's."""

from driver import Driver

PORT = 22000
CONFIG = """<configuration version="36">
  <folder id="tree" path="{tree}" type="{kind}" rescanIntervalS="3600" fsWatcherEnabled="true" fsWatcherDelayS="1">
    <device id="{source}"/><device id="{target}"/>
    <minDiskFree unit="%">0</minDiskFree>
  </folder>
  <device id="{source}" name="source"><address>tcp://{source_address}:{port}</address></device>
  <device id="{target}" name="target"><address>tcp://{target_address}:{port}</address></device>
  <gui enabled="false"/>
  <options>
    <listenAddress>tcp://{own_address}:{port}</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled>
    <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled>
    <natEnabled>false</natEnabled>
    <reconnectionIntervalS>5</reconnectionIntervalS>
    <startBrowser>false</startBrowser>
    <urAccepted>-1</urAccepted>
    <autoUpgradeIntervalH>0</autoUpgradeIntervalH>
    <crashReportingEnabled>false</crashReportingEnabled>
    <setLowPriority>false</setLowPriority>
  </options>
</configuration>
"""


class Product(Driver):
    PACKAGES = ["syncthing"]
    PROGRAM = "syncthing"
    NOTE = ("two instances, a send-only and a receive-only folder, TLS as always, no discovery and no relays, "
            "fsWatcherDelayS = 1, the smallest that it takes")
    own_names = frozenset([".stfolder"])

    def prepare(self):
        world = self.world
        devices = {}
        for side in ("source", "target"):
            home = f"--home={world.state(side)}/syncthing"
            world.run(side, "syncthing", "generate", home, "--no-default-folder")
            devices[side] = world.run(side, "syncthing", "serve", home, "--device-id").split()[-1]
        for side, kind in (("source", "sendonly"), ("target", "receiveonly")):
            (world.trees[side] / ".stfolder").mkdir()
            (world.state(side) / "syncthing/config.xml").write_text(CONFIG.format(
                tree=world.trees[side], kind=kind, port=PORT, own_address=world.addresses[side],
                source_address=world.addresses["source"], target_address=world.addresses["target"], **devices))
        self._serve("target")
        world.wait_port("target", PORT)

    def start(self):
        self._serve("source")

    def _serve(self, side):
        self.world.spawn(side, "syncthing", "serve", f"--home={self.world.state(side)}/syncthing", "--no-browser",
                         "--no-restart", "--no-upgrade")
