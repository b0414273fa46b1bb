// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-mesh/fairway/internal/introspect"
)

// openConnections is what `fairway proxy connections` shows and prints as JSON.
type openConnections struct {
	// Inbound are those at what the proxy listens on.
	Inbound []inbound `json:"inbound"`
	// Outbound are those to endpoints.
	Outbound []outbound `json:"outbound"`
}

type inbound struct {
	Listener    string `json:"listener"`
	Connections int64  `json:"connections"`
}

type outbound struct {
	Cluster     string `json:"cluster"`
	Endpoint    string `json:"endpoint"`
	Connections int64  `json:"connections"`
	// Requests that are under way.
	Requests int64 `json:"requests"`
}

// listenerStats asks Envoy for the connections that are open at each listener.
const (
	listenerPrefix = "listener."
	listenerSuffix = ".downstream_cx_active"
)

func listenerStats() string {
	return "stats?" + url.Values{
		"format": {"json"}, "filter": {`^listener\..*\.downstream_cx_active$`},
	}.Encode()
}

func askConnections(ctx context.Context, c *cluster, t target) (out openConnections, err error) {
	var clusters envoyClusters
	if err := getJSON(ctx, c.reach, t.pod, introspect.PathEnvoy+"clusters?format=json", &clusters); err != nil {
		return out, err
	}
	var stats struct {
		Stats []struct {
			Name  string      `json:"name"`
			Value json.Number `json:"value"`
		} `json:"stats"`
	}
	if err := getJSON(ctx, c.reach, t.pod, introspect.PathEnvoy+listenerStats(), &stats); err != nil {
		return out, err
	}
	out.Inbound, out.Outbound = []inbound{}, []outbound{}
	for _, s := range stats.Stats {
		name := strings.TrimSuffix(strings.TrimPrefix(s.Name, listenerPrefix), listenerSuffix)
		if n, err := s.Value.Int64(); err == nil && n > 0 && !strings.Contains(name, ".worker_") {
			out.Inbound = append(out.Inbound, inbound{name, n})
		}
	}
	for _, cl := range clusters.Clusters {
		for _, h := range cl.Hosts {
			o := outbound{Cluster: cl.Name, Endpoint: h.Address.String()}
			o.Connections, _ = strconv.ParseInt(h.stat("cx_active"), 10, 64)
			o.Requests, _ = strconv.ParseInt(h.stat("rq_active"), 10, 64)
			if o.Connections > 0 || o.Requests > 0 {
				out.Outbound = append(out.Outbound, o)
			}
		}
	}
	slices.SortFunc(out.Inbound, func(a, b inbound) int { return cmp.Compare(a.Listener, b.Listener) })
	slices.SortFunc(out.Outbound, func(a, b outbound) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return out, nil
}

func (o openConnections) draw(t *table) {
	if len(o.Inbound)+len(o.Outbound) == 0 {
		t.line("No connection is open.")
		return
	}
	var rows [][]string
	for _, i := range o.Inbound {
		rows = append(rows, []string{i.Listener, fmt.Sprint(i.Connections)})
	}
	t.rows([]string{"FROM CALLERS AT", "CONNECTIONS"}, rows)
	rows = nil
	for _, o := range o.Outbound {
		rows = append(rows, []string{o.Cluster, o.Endpoint, fmt.Sprint(o.Connections), fmt.Sprint(o.Requests)})
	}
	if len(o.Inbound) > 0 {
		drawRows(t, []string{"TO CLUSTER", "ENDPOINT", "CONNECTIONS", "REQUESTS"}, rows)
		return
	}
	t.rows([]string{"TO CLUSTER", "ENDPOINT", "CONNECTIONS", "REQUESTS"}, rows)
}

// logLevel is what `fairway proxy log-level` shows and prints as JSON.
type logLevel struct {
	Level string `json:"level"`
	// Components that have another one.
	Components string `json:"components,omitempty"`
	// Set says where it is set.
	Set string `json:"set"`
}

func askLogLevel(ctx context.Context, c *cluster, t target) (out logLevel, err error) {
	var info struct {
		Options struct {
			Level      string `json:"log_level"`
			Components string `json:"component_log_level"`
		} `json:"command_line_options"`
	}
	if err := getJSON(ctx, c.reach, t.pod, introspect.PathEnvoy+"server_info", &info); err != nil {
		return out, err
	}
	out = logLevel{Level: info.Options.Level, Components: info.Options.Components, Set: "spec.node.logLevel of the Mesh"}
	if t.gateway != "" {
		out.Set = fmt.Sprintf("spec.logLevel of the ProxyParameters that Gateway %s/%s names", t.pod.Namespace, t.gateway)
	}
	return out, nil
}

func (l logLevel) draw(t *table) {
	t.line("log level %s", cmp.Or(l.Level, unknownCell))
	if l.Components != "" {
		t.line("but of    %s", l.Components)
	}
	t.line("set by    %s", l.Set)
}
