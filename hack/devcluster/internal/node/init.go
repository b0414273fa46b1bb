// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/nodeconf"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// InitCommand is the hidden subcommand that becomes PID 1 of a node.
const InitCommand = "node-init"

// fakeSysctls are machine-wide settings that kubelet sets at its start. It writes only where the value differs, so it
// is shown the values that it wants and the machine keeps its own.
var fakeSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// Init is the life of PID 1 of a node: it gives the node a root file system of its own and then keeps its daemons
// running. It expects to run in fresh mount, UTS, IPC and PID namespaces and in the node's network namespace. It never
// returns nil.
func Init(home topology.Home, n topology.Node) error {
	if err := unix.Sethostname([]byte(n.Name)); err != nil {
		return err
	}
	// Nothing from here on reaches the machine's mount table.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	r := &rootfs{dir: home.NodeRoot(n.Name)}
	r.build(home, n)
	if r.err != nil {
		return r.err
	}
	if err := r.enter(); err != nil {
		return err
	}
	return supervise(n)
}

// rootfs builds the root file system of a node. It remembers the first error, so that the steps read as a list.
type rootfs struct {
	dir string
	err error
}

func (r *rootfs) path(p string) string { return filepath.Join(r.dir, p) }

func (r *rootfs) do(what string, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%s: %w", what, err)
	}
}

func (r *rootfs) mkdir(paths ...string) {
	for _, p := range paths {
		r.do("making "+p, os.MkdirAll(r.path(p), 0o755))
	}
}

func (r *rootfs) mount(source, target, fstype string, flags uintptr, data string) {
	r.do("mounting "+target, unix.Mount(source, r.path(target), fstype, flags, data))
}

func (r *rootfs) bind(source, target string) { r.mount(source, target, "", unix.MS_BIND, "") }

func (r *rootfs) bindReadOnly(source, target string) {
	r.bind(source, target)
	r.mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// link replaces whatever is at path by a symbolic link.
func (r *rootfs) link(target, path string) {
	_ = os.Remove(r.path(path))
	r.do("linking "+path, os.Symlink(target, r.path(path)))
}

func (r *rootfs) write(path string, data []byte, mode fs.FileMode) {
	r.mkdir(filepath.Dir(path))
	r.do("writing "+path, os.WriteFile(r.path(path), data, mode))
}

func (r *rootfs) build(home topology.Home, n topology.Node) {
	// A mount point of its own, so that pivot_root works here and again for every container.
	r.mount(r.dir, "", "", unix.MS_BIND, "")
	r.mkdir("usr", "etc", "dev", "proc", "sys", "run", "tmp", "root", "mnt", "old", "opt/cni/bin", "var/lib/containerd",
		"var/lib/kubelet", "var/lib/etcd", nodeconf.LogDir, nodeconf.BinDir, nodeconf.BootDir, "etc/cni/net.d")
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		r.link("usr/"+l, l)
	}
	r.link("/run", "var/run")
	r.bindReadOnly("/usr", "usr")
	r.bindReadOnly(home.Bin(), nodeconf.BinDir)
	r.bindReadOnly(home.Boot(), nodeconf.BootDir)
	// A copy: DaemonSets that install CNI plugins write here.
	r.copyDir(home.CNI(), "opt/cni/bin")

	r.mount("tmpfs", "run", "tmpfs", 0, "mode=755")
	r.mount("tmpfs", "tmp", "tmpfs", 0, "mode=1777")
	r.mount("proc", "proc", "proc", 0, "")
	r.mount("sysfs", "sys", "sysfs", 0, "")                                 // sysfs of this network namespace ...
	r.mount(cgroupMount, "sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, "") // ... and the cgroups, which a new sysfs hides
	// not every kernel has it, and nothing here needs it
	_ = unix.Mount("bpf", r.path("sys/fs/bpf"), "bpf", 0, "")
	r.devices()
	for name, value := range fakeSysctls {
		fake := filepath.Join("etc/fake-sysctl", name)
		r.write(fake, []byte(value+"\n"), 0o644)
		r.bind(r.path(fake), filepath.Join("proc/sys", name))
	}
	r.etc(home, n)
}

// devices fills a small /dev, so that not even privileged pods see the machine's disks.
func (r *rootfs) devices() {
	r.mount("tmpfs", "dev", "tmpfs", 0, "mode=755")
	r.mkdir("dev/pts", "dev/shm", "dev/mqueue", "dev/net")
	for name, number := range map[string][2]uint32{
		"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9}, "kmsg": {1, 11},
		"tty": {5, 0}, "net/tun": {10, 200},
	} {
		p := r.path("dev/" + name)
		r.do("making device "+name, unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(number[0], number[1]))))
		r.do("making device "+name, os.Chmod(p, 0o666)) // whatever the umask
	}
	r.mount("devpts", "dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
	r.mount("tmpfs", "dev/shm", "tmpfs", 0, "")
	r.mount("mqueue", "dev/mqueue", "mqueue", 0, "")
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2",
	} {
		r.link(target, "dev/"+name)
	}
}

// etc writes the node's configuration and credentials.
func (r *rootfs) etc(home topology.Home, n topology.Node) {
	for _, f := range []string{"passwd", "group", "nsswitch.conf", "protocols", "services", "ld.so.cache"} {
		data, err := os.ReadFile("/etc/" + f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		r.do("reading /etc/"+f, err)
		r.write("etc/"+f, data, 0o644)
	}
	r.copyDir("/etc/alternatives", "etc/alternatives")

	machine, err := thisMachine(home)
	r.do("looking at the machine", err)
	files, err := nodeconf.Files(n, machine)
	r.do("rendering the node's configuration", err)
	for path, data := range files {
		r.write(path, data, 0o644)
	}
	r.copyDir(filepath.Join(home.PKI(), n.Name), nodeconf.KubeletDir)
	for _, f := range []string{"ca.crt", "kube-proxy.conf"} {
		r.copyFile(filepath.Join(home.PKI(), f), filepath.Join(nodeconf.KubeletDir, f))
	}
	r.copyFile(filepath.Join(home.PKI(), "admin.conf"), nodeconf.Kubeconfig)
	if n.ControlPlane {
		r.copyDir(home.PKI(), nodeconf.PKIDir)
	}
}

// copyDir copies the files and symbolic links directly in source.
func (r *rootfs) copyDir(source, target string) {
	r.mkdir(target)
	entries, err := os.ReadDir(source)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	r.do("reading "+source, err)
	for _, e := range entries {
		from, to := filepath.Join(source, e.Name()), filepath.Join(target, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			l, err := os.Readlink(from)
			r.do("reading "+from, err)
			r.link(l, to)
		case e.Type().IsRegular():
			r.copyFile(from, to)
		}
	}
}

func (r *rootfs) copyFile(source, target string) {
	in, err := os.Open(source)
	if err != nil {
		r.do("copying", err)
		return
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		r.do("copying", err)
		return
	}
	r.mkdir(filepath.Dir(target))
	_ = os.Remove(r.path(target))
	out, err := os.OpenFile(r.path(target), os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		r.do("copying", err)
		return
	}
	_, err = io.Copy(out, in)
	r.do("copying to "+target, errors.Join(err, out.Close()))
}

// enter makes the built tree the root, and mounts in it shared, so that Bidirectional and HostToContainer propagation
// work as on any node.
func (r *rootfs) enter() error {
	if err := os.Chdir(r.dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "old"); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the machine's root: %w", err)
	}
	if err := os.Remove("/old"); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}
