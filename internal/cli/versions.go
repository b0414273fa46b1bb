// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Parts of the mesh that have versions, in the order in which they are shown.
const (
	partOperator      = "operator"
	partNodeAgent     = "node agent"
	partNodeProxy     = "node proxy"
	partWaypointAgent = "waypoint agent"
	partWaypointProxy = "waypoint proxy"
)

var parts = []string{partOperator, partNodeAgent, partNodeProxy, partWaypointAgent, partWaypointProxy}

// plural of the parts.
var plural = map[string]string{
	partOperator: "operator replicas", partNodeAgent: "node agents", partNodeProxy: "node proxies",
	partWaypointAgent: "waypoint agents", partWaypointProxy: "waypoint proxies",
}

// isEnvoy tells the parts that are Envoys, whose versions are Envoy's.
func isEnvoy(part string) bool { return part == partNodeProxy || part == partWaypointProxy }

// versionReport is what `fairway version` shows and prints as JSON: this program's, and the cluster's.
type versionReport struct {
	versions
	// Kubernetes is empty if its API server doesn't say.
	Kubernetes string `json:"kubernetes,omitempty"`
	// Parts are null if pods could not be asked for.
	Parts []partVersion `json:"parts"`
	// Skew says what differs, a sentence each.
	Skew []string `json:"skew,omitempty"`
	// Absent says that there is nothing to have a version.
	Absent string `json:"absent,omitempty"`
	// Unknown is what could not be found out, a sentence each.
	Unknown []string `json:"unknown,omitempty"`
}

// partVersion is one version of a part, and who has it.
type partVersion struct {
	Part string `json:"part"`
	// Version is missing where it could not be asked for, and the image has no tag.
	Version string `json:"version,omitempty"`
	Commit  string `json:"commit,omitempty"`
	// ByImage: it is the tag of an image, for the pods could not be asked.
	ByImage bool     `json:"byImage,omitempty"`
	Count   int      `json:"count"`
	Pods    []string `json:"pods"`
}

// saidVersion is what one pod says.
type saidVersion struct {
	pod         *corev1.Pod
	agent       string // part, and that of its Envoy
	envoy       string
	answer      introspect.Version
	unreachable error
}

func collectVersions(ctx context.Context, c *cluster, system string) versionReport {
	k := newCollector(c, system, "")
	k.readMesh(ctx)
	r := versionReport{versions: buildVersion(), Kubernetes: c.version}
	if k.absent[whatMesh] {
		r.Parts, r.Absent = []partVersion{}, "Fairway is not installed in this cluster"
		return r
	}
	var pods corev1.PodList
	k.list(ctx, whatPods, &pods, client.HasLabels{names.LabelComponent})
	if k.unread[whatPods] {
		r.Unknown = []string{"pods can't be listed, so what runs is not known: " + k.whyUnread(whatPods)}
		return r
	}
	k.readGateways(ctx)
	said := k.askVersions(ctx, pods.Items)
	r.Parts = fold(said)
	if len(said) == 0 {
		r.Absent = "no part of the mesh runs: no operator and no node proxy in namespace " + system +
			" (--system-namespace), and no waypoint anywhere"
	}
	r.Skew = skew(r.versions, r.Parts)
	var failed groups
	for _, s := range said {
		if s.unreachable != nil {
			failed.add(whyNoVersion(s.unreachable), client.ObjectKeyFromObject(s.pod).String())
		}
	}
	for _, why := range failed.words {
		all := failed.members[why]
		r.Unknown = append(r.Unknown, oneLine(fmt.Sprintf("%s could not be asked, and the tag of the image is shown: %s",
			enumerate(all), why)))
	}
	return r
}

// whyNoVersion says why a pod has not told its version.
func whyNoVersion(err error) string {
	if strings.Contains(err.Error(), "404 Not Found") {
		return "they are of an earlier version, which doesn't tell"
	}
	return plainly(err)
}

// whyUnread is why a kind could not be listed.
func (k *collector) whyUnread(what string) string {
	if slices.Contains(k.forbidden, what) {
		return "you have no right to"
	}
	return strings.Join(k.failed.words, "; ")
}

// askVersions asks the mesh's pods that run.
func (k *collector) askVersions(ctx context.Context, pods []corev1.Pod) []saidVersion {
	var all []saidVersion
	for i := range pods {
		p := &pods[i]
		s := saidVersion{pod: p}
		switch {
		case p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil:
			continue
		case p.Namespace == k.system && p.Labels[names.LabelComponent] == names.ComponentOperator:
			s.agent = partOperator
		case k.isNodeProxy(p):
			s.agent, s.envoy = partNodeAgent, partNodeProxy
		case k.isWaypoint(p):
			s.agent, s.envoy = partWaypointAgent, partWaypointProxy
		default:
			continue
		}
		all = append(all, s)
	}
	var g errgroup.Group
	g.SetLimit(maxParallel)
	denied := &deniedNamespaces{}
	for i := range all {
		g.Go(func() error {
			s := &all[i]
			s.unreachable = denied.ask(s.pod.Namespace, func() error {
				return getJSON(ctx, k.reach, client.ObjectKeyFromObject(s.pod), introspect.PathVersion, &s.answer)
			})
			return nil
		})
	}
	_ = g.Wait() // its functions return no errors
	return all
}

// deniedNamespaces remembers where port-forwards are refused for want of a right, so that one question is enough.
type deniedNamespaces struct {
	mu  sync.Mutex
	all map[string]error
}

// ask unless it is known to be refused.
func (d *deniedNamespaces) ask(namespace string, question func() error) error {
	d.mu.Lock()
	known := d.all[namespace]
	d.mu.Unlock()
	if known != nil {
		return known
	}
	err := question()
	if isDenied(err) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.all == nil {
			d.all = map[string]error{}
		}
		d.all[namespace] = err
	}
	return err
}

// fold has one entry for each version of each part.
func fold(said []saidVersion) []partVersion {
	type key struct {
		part, version, commit string
		byImage               bool
	}
	of := map[key][]string{}
	add := func(s saidVersion, part, version, commit, container string) {
		if part == "" {
			return
		}
		k := key{part: part, version: version, commit: commit}
		if version == "" {
			k.version, k.byImage = tagOfContainer(s.pod, container), true
		}
		of[k] = append(of[k], client.ObjectKeyFromObject(s.pod).String())
	}
	for _, s := range said {
		container := "agent"
		if s.agent == partOperator {
			container = "operator"
		}
		add(s, s.agent, s.answer.Version, s.answer.Commit, container)
		version, commit := envoyVersion(s.answer.Envoy)
		add(s, s.envoy, version, commit, "envoy")
	}
	out := make([]partVersion, 0, len(of))
	for k, pods := range of {
		slices.Sort(pods)
		out = append(out, partVersion{
			Part: k.part, Version: k.version, Commit: k.commit, ByImage: k.byImage, Count: len(pods), Pods: pods,
		})
	}
	slices.SortFunc(out, func(a, b partVersion) int {
		return cmp.Or(cmp.Compare(slices.Index(parts, a.Part), slices.Index(parts, b.Part)), -cmp.Compare(a.Count, b.Count),
			cmp.Compare(a.Version, b.Version), cmp.Compare(a.Commit, b.Commit), cmp.Compare(a.Pods[0], b.Pods[0]))
	})
	return out
}

// envoyVersion reads COMMIT/VERSION/STATE/BUILD/TLS.
func envoyVersion(said string) (version, commit string) {
	fields := strings.Split(said, "/")
	if len(fields) < 2 {
		return "", ""
	}
	return fields[1], fields[0]
}

func tagOfContainer(p *corev1.Pod, name string) string {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) { // a node's Envoy begins before its agent
		if c.Name == name {
			return tagOf(c.Image)
		}
	}
	return ""
}

// skew says what differs. Tags of images are compared with each other only where nothing better is known, and never
// with what Envoys say.
func skew(client versions, all []partVersion) (out []string) {
	byPart := map[string][]partVersion{}
	for _, p := range all {
		if p.Version != "" && (!isEnvoy(p.Part) || !p.ByImage) {
			byPart[p.Part] = append(byPart[p.Part], p)
		}
	}
	for _, part := range parts {
		if have := byPart[part]; len(have) > 1 && differ(have[0].Version, have[0].Commit, have[1:]...) {
			var each []string
			for _, p := range have {
				each = append(each, fmt.Sprintf("%d %s", p.Count, p.called()))
			}
			out = append(out, fmt.Sprintf("%s are not of one version: %s", plural[part], and(each)))
		}
	}
	for _, part := range parts {
		have := byPart[part]
		if !isEnvoy(part) && len(have) == 1 && differ(client.Version, client.Revision, have[0]) {
			out = append(out, fmt.Sprintf("%s is %s, and this command is %s", part, have[0].called(),
				partVersion{Version: client.Version, Commit: client.Revision}.called()))
		}
	}
	return out
}

// differ tells whether others are not of a version. Commits count where both are known.
func differ(version, commit string, others ...partVersion) bool {
	return slices.ContainsFunc(others, func(p partVersion) bool {
		return p.Version != version || commit != "" && p.Commit != "" && p.Commit != commit
	})
}

func (p partVersion) called() string {
	if p.Commit == "" {
		return p.Version
	}
	return p.Version + " (" + shortCommit(p.Commit) + ")"
}

// shortCommit is as much of a commit as tells it from others.
func shortCommit(commit string) string {
	hash, dirty, _ := strings.Cut(commit, "-")
	if len(hash) > 12 {
		hash = hash[:12]
	}
	if dirty != "" {
		hash += "-" + dirty
	}
	return hash
}

func (r versionReport) draw(t *table) {
	rows := [][]string{{"this command", r.Version, dash(shortCommit(r.Revision)), "-", ""}}
	for _, p := range r.Parts {
		version, commit := cmp.Or(p.Version, unknownCell), dash(shortCommit(p.Commit))
		if p.ByImage {
			commit = unknownCell
		}
		pods := ""
		if slices.ContainsFunc(r.Parts, func(o partVersion) bool { return o.Part == p.Part && o.Pods[0] != p.Pods[0] }) {
			pods = enumerate(p.Pods)
		}
		rows = append(rows, []string{p.Part, version, commit, strconv.Itoa(p.Count), pods})
	}
	t.rows([]string{"PART", "VERSION", "COMMIT", "COUNT", ""}, rows)
	if r.Kubernetes != "" {
		t.line("\nKubernetes %s; this command deploys Envoy %s.", r.Kubernetes, r.Envoy)
	}
	if len(r.Skew) > 0 {
		t.line("\nVersions differ:")
		for _, s := range r.Skew {
			t.line("  - %s", s)
		}
		t.line("    see %s", docsUpgrade)
	}
	if len(r.Unknown) > 0 {
		t.line("\nUnknown:")
		for _, u := range r.Unknown {
			t.line("  - %s", u)
		}
	}
	switch {
	case r.Absent != "":
		t.line("\n%s.", strings.ToUpper(r.Absent[:1])+r.Absent[1:])
	case len(r.Skew)+len(r.Unknown) == 0:
		t.line("\nAll parts of the mesh are of one version.")
	}
}

// podOf splits NAMESPACE/NAME.
func podOf(name string) types.NamespacedName {
	namespace, name, _ := strings.Cut(name, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}
}
