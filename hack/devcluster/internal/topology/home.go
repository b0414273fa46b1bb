// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// homeVariable overrides where built binaries, images and state live.
const homeVariable = "FAIRWAY_DEVCLUSTER_HOME"

// rootModule marks the top of the source tree.
const rootModule = "module github.com/fairway-mesh/fairway\n"

// Home is the folder of built binaries, images and state. Everything in it can be made again.
type Home string

// FindHome returns $FAIRWAY_DEVCLUSTER_HOME, or fairway/devcluster in the user's cache folder, as an absolute path.
func FindHome() (Home, error) {
	if h := os.Getenv(homeVariable); h != "" {
		abs, err := filepath.Abs(h)
		return Home(abs), err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w (set %s to a folder)", err, homeVariable)
	}
	return Home(filepath.Join(cache, "fairway", "devcluster")), nil
}

func (h Home) join(parts ...string) string {
	return filepath.Join(append([]string{string(h)}, parts...)...)
}

// Bin holds the binaries of Kubernetes, etcd, containerd, CoreDNS and the test images.
func (h Home) Bin() string { return h.join("bin") }

// CNI holds the CNI plugins.
func (h Home) CNI() string { return h.join("cni") }

// Stamps says, per component, what it was built from.
func (h Home) Stamps() string { return h.join("stamps") }

// Images is an OCI image layout with every image built so far.
func (h Home) Images() string { return h.join("images") }

// Boot holds the image archives that a node imports before its kubelet starts.
func (h Home) Boot() string { return h.join("boot") }

// Work holds binaries of the working tree, rebuilt by `images`.
func (h Home) Work() string { return h.join("work") }

// Lock is held by a command that changes the cluster or the binaries.
func (h Home) Lock() string { return h.join("lock") }

// State holds what belongs to the running cluster. `down` removes it.
func (h Home) State() string { return h.join("state") }

// Controllers says which cgroup controllers the cluster made the machine's root cgroup pass on.
func (h Home) Controllers() string { return h.join("state", "cgroup-controllers") }

// PKI holds keys and certificates of the cluster.
func (h Home) PKI() string { return h.join("state", "pki") }

// NodeRoot is the root file system of one node.
func (h Home) NodeRoot(name string) string { return h.join("state", name, "root") }

// Process is where the process of that name is recorded: a node's init, or the lan agent.
func (h Home) Process(name string) string { return h.join("state", name+".process") }

// Log is where the process of that name writes.
func (h Home) Log(name string) string { return h.join("state", name+".log") }

// Kubeconfig is the administrator's, for the machine's own network namespace: it goes through the forwarder on
// loopback.
func (h Home) Kubeconfig() string { return h.join("admin.conf") }

// InnerKubeconfig is the administrator's, for programs in the namespaces of the lan, a node or a pod.
func (h Home) InnerKubeconfig() string { return h.join("admin-inner.conf") }

// Clean removes everything that was built. It names what it removes: the folder may be one that the user shares with
// others.
func (h Home) Clean() error {
	var errs []error
	for _, path := range []string{h.Bin(), h.CNI(), h.Stamps(), h.Images(), h.Boot(), h.Work(), h.join("devcluster")} {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// FindSource walks up from the working folder to the top of Fairway's source tree.
func FindSource() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), rootModule) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not in Fairway's source tree: change into it, or name it with --source")
		}
	}
}
