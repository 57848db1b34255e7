"""Names of QVD's settings that this version knows and does not read."""

from __future__ import annotations

WITHOUT_EFFECT = ("log4perl.", "l7r.as_user", "l7r.pid_file", "hkd.as_user")
"""Keys of QVD that are accepted, warned about once, and ignored."""

QVD_KEYS = frozenset(
    """
    database.host database.name database.user database.password database.port path.tmp
    path.storage.overlayfs path.l7r.ssl.key path.l7r.ssl.cert
    path.l7r.ssl.ca path.l7r.ssl.crl path.qvd.bin command.kvm command.kvm-img
    command.dhcpd l7r.auth.plugin.default.salt l7r.auth.mode l7r.loadbalancer.plugin
    l7r.loadbalancer.plugin.default.weight.ram l7r.loadbalancer.plugin.default.weight.cpu
    l7r.loadbalancer.plugin.default.weight.random hkd.pid_file
    vm.lxc.unionfs.type vm.kvm.virtio vm.vnc.redirect vm.vnc.opts
    vm.serial.redirect vm.lxc.home.per.user vm.kvm.home.drive.index
    internal.vm.network.dhcp-hostsfile internal.vm.port.x
    internal.hkd.cluster.node.timeout internal.hkd.agent.ticker.timeout internal.hkd.lock.path
    internal.hkd.vm.lock.path
    internal.hkd.stopping.l7rs.timeout
    internal.hkd.killing.vms.retry.timeout internal.hkd.command.timeout.lxc-stop
    internal.vm.debug.enable internal.vm.monitor.redirect internal.vm.reserved_cpu
    internal.hkd.vmhandler.killer.delay vma.default.client.keyboard vma.default.client.link
    """.split()  # noqa: SIM905, a list of sixty words is read more easily so
)
"""Keys of QVD that this version does not read: accepted, so that its files and scripts still work."""
