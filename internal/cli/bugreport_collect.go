// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/redact"
)

// mostOfItem bounds one file of a report.
const mostOfItem = 64 << 20

// bugReport writes an archive. Nothing gets into it but through add and items, which take out what may be a secret.
type bugReport struct {
	*cluster
	system  string
	proxies int
	at      time.Time
	notes   io.Writer

	zip *gzip.Writer
	mu  sync.Mutex
	tar *tar.Writer
	// failed is the first error of the archive itself.
	failed error
	// missing is what could not be collected, a sentence each.
	missing []string
}

func newBugReport(c *cluster, system string, proxies int, at time.Time, to, notes io.Writer) *bugReport {
	zip := gzip.NewWriter(to)
	return &bugReport{
		cluster: c, system: system, proxies: proxies, at: at, notes: notes, zip: zip, tar: tar.NewWriter(zip),
	}
}

// say what is done. What others wrote is in it: their names and errors, which a terminal must not act on.
func (b *bugReport) say(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = sayLine(b.notes, fmt.Sprintf(format, args...))
}

// lack something.
func (b *bugReport) lack(what, why string) {
	text := oneLine(redact.String(what + ": " + why))
	b.say("could not collect %s", text)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.missing = append(b.missing, text)
}

// add a file of what get answers within its time; a name that ends in .json is that of JSON.
func (b *bugReport) add(ctx context.Context, name string, get func(context.Context) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(ctx, itemTime)
	defer cancel()
	data, err := get(ctx)
	switch {
	case err != nil:
		b.lack(name, plainly(err))
		return
	case len(data) > mostOfItem:
		b.lack(name, fmt.Sprintf("it has %d MiB, which is too much", len(data)>>20))
		return
	}
	if path.Ext(name) == ".json" {
		data, err = redact.JSON(ctx, data)
	} else {
		data, err = redact.Text(ctx, data)
	}
	if err != nil {
		b.lack(name, plainly(err))
		return
	}
	b.write(name, data)
}

// addJSON adds a file of a value.
func (b *bugReport) addJSON(ctx context.Context, name string, get func(context.Context) (any, error)) {
	b.add(ctx, name, func(ctx context.Context) ([]byte, error) {
		v, err := get(ctx)
		if err != nil {
			return nil, err
		}
		return json.Marshal(v)
	})
}

func (b *bugReport) write(name string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed != nil {
		return
	}
	b.failed = b.tar.WriteHeader(&tar.Header{
		Name: path.Join("fairway-bug-report", name), Mode: 0o644, Size: int64(len(data)), ModTime: b.at,
		Format: tar.FormatPAX,
	})
	if b.failed == nil {
		_, b.failed = b.tar.Write(data)
	}
}

// close ends the archive with what it lacks.
func (b *bugReport) close() error {
	slices.Sort(b.missing)
	var about bytes.Buffer
	fmt.Fprintf(&about, "A report of Fairway, made by fairway %s at %s.\n\nWhat may be a secret was replaced by %s.\n",
		names.Version, b.at.Format(time.RFC3339), redact.Mark)
	if len(b.missing) == 0 {
		about.WriteString("\nNothing is missing.\n")
	} else {
		about.WriteString("\nCould not be collected:\n")
	}
	for _, m := range b.missing {
		about.WriteString("  - " + m + "\n")
	}
	b.write("about.txt", about.Bytes())
	return errors.Join(b.failed, b.tar.Close(), b.zip.Close())
}

func (b *bugReport) collect(ctx context.Context) {
	b.say("versions, status and check")
	b.addJSON(ctx, "version.json", func(ctx context.Context) (any, error) {
		return collectVersions(ctx, b.cluster, b.system), nil
	})
	b.addJSON(ctx, "status.json", func(ctx context.Context) (any, error) {
		return collect(ctx, b.cluster, b.system), nil
	})
	b.addJSON(ctx, "check.json", func(ctx context.Context) (any, error) { return check(ctx, b.cluster, b.system), nil })

	k := newCollector(b.cluster, b.system, "")
	reading, cancel := context.WithTimeout(ctx, itemTime)
	defer cancel()
	k.readMesh(reading)
	k.readNamespaces(reading)
	var pods corev1.PodList
	k.list(reading, whatPods, &pods)
	k.pods = pods.Items
	k.readGateways(reading)
	b.say("objects and Events")
	b.collectObjects(ctx, k)
	if k.unread[whatPods] { // logs and proxies are of pods
		b.lack("logs, metrics and configurations of proxies", "pods can't be listed: "+k.whyUnread(whatPods))
		return
	}
	b.collectPods(ctx, k)
}

// collectPods asks operators, agents and Envoys.
func (b *bugReport) collectPods(ctx context.Context, k *collector) {
	var operators, nodes, waypoints []corev1.Pod
	for i := range k.pods {
		switch p := &k.pods[i]; {
		case p.Namespace == k.system && p.Labels[names.LabelComponent] == names.ComponentOperator:
			operators = append(operators, *p)
		case k.isNodeProxy(p):
			nodes = append(nodes, *p)
		case k.isWaypoint(p):
			waypoints = append(waypoints, *p)
		}
	}
	var g errgroup.Group
	g.SetLimit(maxParallel)
	for _, of := range []struct {
		what  string
		pods  []corev1.Pod
		most  int
		paths []agentPath
	}{
		{"operators", operators, len(operators), ofOperators},
		{"node proxies", nodes, b.proxies, ofProxies},
		{"waypoints' proxies", waypoints, b.proxies, ofProxies},
	} {
		slices.SortStableFunc(of.pods, func(a, b corev1.Pod) int { // the ones with trouble first
			return boolToInt(podReady(&a)) - boolToInt(podReady(&b))
		})
		if left := len(of.pods) - of.most; left > 0 {
			b.lack(of.what, fmt.Sprintf("%d of %d were left out (--proxies)", left, len(of.pods)))
			of.pods = of.pods[:of.most]
		}
		b.say("%s: %d, with logs, metrics and configuration", of.what, len(of.pods))
		for i := range of.pods {
			p := &of.pods[i]
			b.collectLogs(ctx, &g, p)
			for _, a := range of.paths {
				if p.Status.Phase != corev1.PodRunning {
					break // its logs say why
				}
				g.Go(func() error {
					b.add(ctx, path.Join("pods", p.Namespace, p.Name, a.file), func(ctx context.Context) ([]byte, error) {
						return b.reach.get(ctx, client.ObjectKeyFromObject(p), a.path)
					})
					return nil
				})
			}
		}
	}
	_ = g.Wait() // its functions return no errors
}

func boolToInt(is bool) int {
	if is {
		return 1
	}
	return 0
}

// agentPath is a path of the loopback interface, and the file that its answer becomes.
type agentPath struct{ path, file string }

var (
	ofOperators = []agentPath{
		{introspect.PathProxies, "proxies.json"},
		{introspect.PathPlaintext, "plaintext.json"},
		{introspect.PathVersion, "version.json"},
		{introspect.PathMetrics, "metrics.txt"},
	}
	ofProxies = []agentPath{
		{introspect.PathAgent, "agent.json"},
		{introspect.PathVersion, "version.json"},
		{introspect.PathMetrics, "metrics.txt"},
		{introspect.PathEnvoy + "config_dump?include_eds=on", "envoy-config_dump.json"},
		{introspect.PathEnvoy + "clusters?format=json", "envoy-clusters.json"},
		{introspect.PathEnvoy + "listeners?format=json", "envoy-listeners.json"},
		{introspect.PathEnvoy + "server_info", "envoy-server_info.json"},
		{introspect.PathEnvoy + "certs", "envoy-certs.json"},
		{introspect.PathEnvoy + "memory", "envoy-memory.json"},
	}
)

// collectLogs reads the logs of a pod's containers, and of those before them.
func (b *bugReport) collectLogs(ctx context.Context, g *errgroup.Group, p *corev1.Pod) {
	started, restarted := map[string]bool{}, map[string]bool{}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		started[s.Name] = s.State.Waiting == nil || s.RestartCount > 0
		restarted[s.Name] = s.RestartCount > 0
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		for _, previous := range []bool{false, true} {
			if previous && !restarted[c.Name] || !started[c.Name] && len(started) > 0 {
				continue
			}
			file := c.Name + ".log"
			if previous {
				file = c.Name + "-previous.log"
			}
			g.Go(func() error {
				b.add(ctx, path.Join("pods", p.Namespace, p.Name, file), func(ctx context.Context) ([]byte, error) {
					return b.logs.read(ctx, types.NamespacedName{Namespace: p.Namespace, Name: p.Name}, c.Name, previous)
				})
				return nil
			})
		}
	}
}

// fileOf is the name of a file for a kind.
func fileOf(group, kind string) string {
	if group == "" {
		return strings.ToLower(kind) + ".json"
	}
	return strings.ToLower(kind) + "." + group + ".json"
}
