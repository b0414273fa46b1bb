// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/introspect"
)

// mostPlain bounds the workloads that people are shown; JSON has them all.
const mostPlain = 20

// plaintextReport is who came to captured pods in plain text.
type plaintextReport struct {
	Since   time.Time         `json:"since"`
	Callers []counts.Stranger `json:"callers"`
}

// readPlaintext asks the operator's replicas, each of which knows of all proxies, and believes the one that has counted
// for longest. One that can't be asked has been named already, unless it is an older release's, which doesn't count.
func (k *collector) readPlaintext(ctx context.Context) {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(maxParallel)
	for _, o := range k.operator.running() {
		g.Go(func() error {
			var answer introspect.Plaintext
			if getJSON(ctx, k.reach, o, introspect.PathPlaintext, &answer) != nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if k.report.Plaintext == nil || answer.Since.Before(k.report.Plaintext.Since) {
				k.report.Plaintext = &plaintextReport{Since: answer.Since, Callers: answer.Callers}
			}
			return nil
		})
	}
	_ = g.Wait() // its functions return no errors
}

func (r report) drawPlaintext(t *table, now time.Time) {
	switch {
	case r.Plaintext == nil && r.Mesh.Found:
		t.line("\nConnections without identity: unknown, no operator says.")
		return
	case r.Plaintext == nil, len(r.Plaintext.Callers) == 0:
		return
	}
	window := "hour"
	if since := now.Sub(r.Plaintext.Since); since < time.Hour {
		window = fmt.Sprintf("%d minutes", int(since.Minutes()))
	}
	t.line("\nConnections without identity in the last %s:", window)
	shown := 0
	for rest := r.Plaintext.Callers; len(rest) > 0; {
		to := rest[0].Workload
		n := slices.IndexFunc(rest, func(s counts.Stranger) bool { return s.Workload != to })
		if n < 0 {
			n = len(rest)
		}
		if shown++; shown <= mostPlain {
			t.line("  %s/%s %s", to.Namespace, to.Name, fromWhom(rest[:n]))
		}
		rest = rest[n:]
	}
	if more := shown - mostPlain; more > 0 {
		t.line("  and %d workloads more: see -o json", more)
	}
}

// fromWhom says who was let in, and who was refused.
func fromWhom(all []counts.Stranger) string {
	var parts []string
	for _, way := range []struct {
		verb string
		of   func(counts.Stranger) uint64
	}{
		{"takes plain text from", func(s counts.Stranger) uint64 { return s.LetIn }},
		{"refuses", func(s counts.Stranger) uint64 { return s.Refused }},
	} {
		var from []string
		for _, s := range all {
			if n := way.of(s); n > 0 {
				from = append(from, fmt.Sprintf("%s %d", origin(s.From), n))
			}
		}
		if len(from) > 0 {
			parts = append(parts, way.verb+": "+strings.Join(from, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

func origin(o counts.Origin) string {
	switch o.Kind {
	case counts.OriginPod:
		return "namespace " + o.Namespace
	case counts.OriginMember:
		return "namespace " + o.Namespace + " (in the mesh)"
	case counts.OriginNode:
		return "hostNetwork or a node"
	case counts.OriginOutside:
		return "outside"
	case counts.OriginOthers:
	}
	return "many others"
}
