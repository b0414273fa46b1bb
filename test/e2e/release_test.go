// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

var (
	releasesDir = flag.String("releases", "",
		"folder with the releases new and former, as hack/trial-releases.sh makes them, for TestRelease…")
	helmProgram = flag.String("helm", "helm", "Helm, for TestRelease…")
	olmProgram  = flag.String("olm", "", "program olm-install, which applies bundles, for TestRelease…")
)

// release is a folder as make release writes it. Nothing else of the tree is used to install it.
type release struct {
	dir string
	// image of operator and agents, by digest.
	image string
	// cli is the user's command, out of its archive.
	cli string
}

// image of operator and agents, in manifests of a release.
var releaseImage = regexp.MustCompile(`\S+/fairway@sha256:[0-9a-f]{64}`)

// openRelease brings the images of a release to the nodes, and its commands to this machine.
func openRelease(t *testing.T, name string) *release {
	t.Helper()
	r := &release{dir: filepath.Join(*releasesDir, name)}
	manifest, err := os.ReadFile(filepath.Join(r.dir, "install.yaml"))
	require.NoError(t, err)
	r.image = releaseImage.FindString(string(manifest))
	require.NotEmpty(t, r.image, "manifests name images by digest")
	r.cli = filepath.Join(t.TempDir(), "fairway")
	unpack(t, r.file(t, "fairway_*_linux_*.tar.gz"), "fairway", r.cli)
	command(t, "../../hack/devcluster/devcluster", "load", r.file(t, "images/fairway-[0-9]*.oci.tar"))
	return r
}

// file of a release, whose name has its version.
func (r *release) file(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, pattern))
	require.NoError(t, err)
	require.Len(t, files, 1, "%s of %s", pattern, r.dir)
	return files[0]
}

// unpack one file of a compressed archive.
func unpack(t *testing.T, archive, name, to string) {
	t.Helper()
	f, err := os.Open(archive)
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	for files := tar.NewReader(z); ; {
		h, err := files.Next()
		require.NoError(t, err, "%s in %s", name, archive)
		if h.Name != name {
			continue
		}
		out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, h.FileInfo().Mode())
		require.NoError(t, err)
		_, err = io.Copy(out, files)
		require.NoError(t, errors.Join(err, out.Close()))
		return
	}
}

// command must not fail.
func command(t *testing.T, program string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	require.NoError(t, err, "%s %v:\n%s", program, args, out)
}

// installation is a way to install releases: as docs/install.md says.
type installation struct {
	// install a release where none is, or, as an upgrade, where another is.
	install func(t *testing.T, r *release, upgrade bool)
	// back to the release that was there before.
	back func(t *testing.T, r *release)
	// remove all but the Mesh, which is gone by then.
	remove func(t *testing.T, r *release)
}

var installations = map[string]installation{
	"manifests": {
		install: func(t *testing.T, r *release, _ bool) { t.Helper(); r.apply(t) },
		back:    func(t *testing.T, r *release) { t.Helper(); r.apply(t) },
		remove: func(t *testing.T, r *release) {
			t.Helper()
			kubectl(t, "delete", "-f", filepath.Join(r.dir, "install.yaml"), "--timeout=2m")
		},
	},
	"Helm": {
		install: func(t *testing.T, r *release, upgrade bool) {
			t.Helper()
			if !upgrade {
				makeSystemNamespace(t)
			}
			helm(t, "upgrade", "--install", "fairway", r.file(t, "fairway-[0-9]*.tgz"), "--wait", "--timeout=3m")
		},
		back: func(t *testing.T, _ *release) { t.Helper(); helm(t, "rollback", "fairway", "--wait", "--timeout=3m") },
		remove: func(t *testing.T, _ *release) {
			t.Helper()
			helm(t, "uninstall", "fairway")
			deleteRest(t)
		},
	},
	"the lifecycle manager": {
		install: func(t *testing.T, r *release, upgrade bool) {
			t.Helper()
			if !upgrade {
				makeSystemNamespace(t)
			}
			r.bundle(t, "-wait=3m")
		},
		back: func(t *testing.T, r *release) { t.Helper(); r.bundle(t, "-wait=3m") },
		remove: func(t *testing.T, r *release) {
			t.Helper()
			r.bundle(t, "-delete")
			kubectl(t, "delete", "clusterroles", "--selector=app.kubernetes.io/part-of=fairway")
			deleteRest(t)
		},
	},
}

// apply the manifests.
func (r *release) apply(t *testing.T) {
	t.Helper()
	kubectl(t, "apply", "--server-side", "-f", filepath.Join(r.dir, "install.yaml"))
	kubectl(t, "-n", names.SystemNamespace, "rollout", "status", "deployment/"+names.OperatorDeployment, "--timeout=3m")
}

// bundle is applied, or deleted, as the lifecycle manager does.
func (r *release) bundle(t *testing.T, flags ...string) {
	t.Helper()
	command(t, *olmProgram, append(flags, "-bundle", r.file(t, "fairway-bundle-[0-9]*.tgz"))...)
}

func helm(t *testing.T, args ...string) {
	t.Helper()
	command(t, *helmProgram, append(args, "--namespace", names.SystemNamespace)...)
}

// makeSystemNamespace for those who don't bring it.
func makeSystemNamespace(t *testing.T) {
	t.Helper()
	kubectl(t, "create", "namespace", names.SystemNamespace)
	kubectl(t, "label", "namespace", names.SystemNamespace, "pod-security.kubernetes.io/enforce=privileged")
}

// deleteRest is what stays when Helm or the lifecycle manager have removed what they brought.
func deleteRest(t *testing.T) {
	t.Helper()
	kubectl(t, "delete", "customresourcedefinitions", "--selector=app.kubernetes.io/part-of=fairway")
	kubectl(t, "delete", "namespace", names.SystemNamespace)
}

// start installs a release and its Mesh, and waits for them.
func (i installation) start(t *testing.T, r *release) {
	t.Helper()
	i.install(t, r, false)
	kubectl(t, "apply", "--server-side", "-f", filepath.Join(r.dir, "mesh.yaml"))
	kubectl(t, "wait", "mesh", names.Mesh, "--for=condition=Ready", "--timeout=3m")
}

// end removes a release, in the order of docs/install.md.
func (i installation) end(t *testing.T, r *release) {
	t.Helper()
	kubectl(t, "delete", "mesh", names.Mesh)
	kubectl(t, "-n", names.SystemNamespace, "wait", "--for=delete", "daemonset/"+names.NodeDaemonSet, "--timeout=3m")
	i.remove(t, r)
}

// withReleases takes the mesh of the working tree away, and puts it back when the test ends.
func withReleases(t *testing.T) (former, current *release) {
	t.Helper()
	if *releasesDir == "" {
		t.Skip("needs releases to install: make test-releases makes them")
	}
	former, current = openRelease(t, "former"), openRelease(t, "new")
	require.NotEqual(t, former.image, current.image)
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(mesh), mesh))
	t.Cleanup(func() {
		run(context.Background(), t, "deploy")
		restore(mesh)
		meshReady(t)
	})
	run(t.Context(), t, "undeploy")
	return former, current
}

// TestReleaseInstalled installs what a release consists of on a cluster without the mesh, in each way; the mesh works,
// and once it is removed as its documents say, nothing of it is left.
func TestReleaseInstalled(t *testing.T) {
	_, r := withReleases(t)
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.create(httpRoute("server", toService("server"), rule(nil, backend("server"))))
	for name, way := range installations {
		ok := t.Run(name, func(t *testing.T) {
			noObjects(t)
			noTracesOnNodes(t)
			command(t, r.cli, "check")
			way.start(t, r)
			command(t, r.cli, "status", "--wait", "--timeout=3m")
			command(t, r.cli, "check")
			runs(t, names.SystemNamespace, names.ComponentOperator, r)
			runs(t, names.SystemNamespace, names.ComponentNode, r)
			s.captured("client", "server")
			s.programmed("server")
			runs(t, s.name, names.ComponentWaypoint, r)
			s.answers("client", "http://server/", "server")
			way.end(t, r)
			require.True(t, gone(t, &corev1.Namespace{}, "", names.SystemNamespace))
			noObjects(t)
			noTracesOnNodes(t)
			require.Empty(t, s.many("client", 20, "http://server/").failures())
		})
		if !ok {
			return // what is left would fail the others
		}
	}
}

// runs waits until the pods of a component are of a release, and no other.
func runs(t *testing.T, namespace, name string, r *release) {
	t.Helper()
	eventually.PassesWithin(t, 4*time.Minute, name+" runs "+r.image, func(look require.TestingT) {
		pods, err := component(t.Context(), namespace, name)
		require.NoError(look, err)
		require.NotEmpty(look, pods)
		for i := range pods {
			require.Equal(look, []string{r.image}, imagesOf(&pods[i]), pods[i].Name)
		}
	})
}

// imagesOf a pod that are the mesh's own.
func imagesOf(p *corev1.Pod) (out []string) {
	seen := map[string]bool{}
	for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
		if strings.Contains(c.Image, "/fairway") && !seen[c.Image] {
			seen[c.Image] = true
			out = append(out, c.Image)
		}
	}
	return out
}

// TestReleaseUpgraded upgrades one release to another, and rolls it back, while everything is used. On both ways the
// operator is another version than the proxies for a while, and what is new then works as well.
func TestReleaseUpgraded(t *testing.T) {
	former, current := withReleases(t)
	for name, way := range installations {
		ok := t.Run(name, func(t *testing.T) {
			way.start(t, former)
			s := newLoaded(t)
			s.during(fault{what: "upgraded and rolled back", happens: func(s *loaded, _ int) {
				s.changes(current, former, func() { way.install(s.t, current, true) })
				s.changes(former, current, func() { way.back(s.t, former) })
			}})
			way.install(t, current, true)
			s.run(current)
			way.end(t, current)
		})
		if !ok {
			return
		}
	}
}

// changes the mesh to a release: first the operator alone, then, when it is no longer paused, the proxies.
func (s *loaded) changes(to, from *release, change func()) {
	s.t.Helper()
	patchMesh(s.t, `{"spec":{"paused":true}}`)
	meshReady(s.t)
	change()
	runs(s.t, names.SystemNamespace, names.ComponentOperator, to)
	meshReady(s.t)
	runs(s.t, names.SystemNamespace, names.ComponentNode, from)
	runs(s.t, s.name, names.ComponentWaypoint, from)
	s.takesWhatIsNew()
	patchMesh(s.t, `{"spec":{"paused":false}}`)
	s.run(to)
	s.takesWhatIsNew()
}

// run a release, all of it.
func (s *loaded) run(r *release) {
	s.t.Helper()
	runs(s.t, names.SystemNamespace, names.ComponentOperator, r)
	runs(s.t, names.SystemNamespace, names.ComponentNode, r)
	runs(s.t, s.name, names.ComponentWaypoint, r)
	nodesRolledOut(s.t)
	s.rolledOut(loadedWaypoint, func(*appsv1.Deployment) bool { return true })
}

// takesWhatIsNew: a pod, a Service, a route of the waypoint, each for the first time.
func (s *loaded) takesWhatIsNew() {
	s.t.Helper()
	name := "new-" + strings.ToLower(time.Now().UTC().Format("150405.000"))
	name = strings.ReplaceAll(name, ".", "-")
	s.server(name)
	s.service(name, name, through(loadedWaypoint))
	s.create(httpRoute(name, toService(name), rule(nil, backend(name))))
	s.captured(name)
	s.programmed(name)
	s.answers("load-pods", "http://"+name+"/", name)
}
