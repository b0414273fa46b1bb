// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// maxRejections bounds what is told about one type of one proxy; the count is always right.
const maxRejections = 20

// ProxySource lists the connected proxies; xds.Server is one.
type ProxySource interface {
	Proxies() []xds.ProxyState
}

// StrangerSource sums up who came to pods in plain text; counts.Strangers is one.
type StrangerSource interface {
	Since() time.Time
	List() []counts.Stranger
}

// OperatorHandler is the operator's read-only interface.
func OperatorHandler(source ProxySource, strangers StrangerSource, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+PathMetrics, metrics)
	mux.HandleFunc("GET "+PathVersion, handleVersion(nil))
	mux.HandleFunc("GET "+PathProxies, func(w http.ResponseWriter, _ *http.Request) {
		out := Proxies{Proxies: []Proxy{}}
		for _, p := range source.Proxies() {
			out.Proxies = append(out.Proxies, proxyOf(p))
		}
		writeJSON(w, out)
	})
	mux.HandleFunc("GET "+PathPlaintext, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, Plaintext{Since: strangers.Since(), Callers: strangers.List()})
	})
	return addressedLocally(mux)
}

func proxyOf(p xds.ProxyState) Proxy {
	out := Proxy{
		Scope: string(p.Proxy.Scope), Pod: p.Proxy.Pod, PodUID: p.Proxy.PodUID, Node: p.Proxy.Node,
		Address: p.Proxy.Address, Connected: p.Connected,
		Types: []Type{},
	}
	for url, t := range p.Types {
		out.Types = append(out.Types, typeOf(url, t))
	}
	slices.SortFunc(out.Types, func(a, b Type) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func typeOf(url string, t xds.TypeState) Type {
	out := Type{Name: shortType(url)}
	known := make(map[string]bool, len(t.Resources))
	for _, r := range t.Resources {
		known[r.Name] = true
		switch stateOf(r) {
		case xds.Acked:
			out.Acked++
		case xds.Pending:
			out.Pending++
		case xds.Rejected:
			out.Rejected++
			if len(out.Rejections) < maxRejections {
				out.Rejections = append(out.Rejections, Rejection{Resource: r.Name, Version: r.Rejected, Error: r.Error})
			}
		}
	}
	for _, n := range t.Names {
		if !known[n] {
			out.Pending++
		}
	}
	out.Resources = out.Acked + out.Pending + out.Rejected
	return out
}

// stateOf is empty for a resource that the proxy knows not to exist.
func stateOf(r xds.ResourceStatus) xds.AckState {
	switch {
	case r.Rejected != "" && (r.Sent == "" || r.Sent == r.Rejected):
		return xds.Rejected
	case r.Sent == "" && r.Acked == "":
		return ""
	case r.Sent == "" || r.Sent == r.Acked: // never sent here: the proxy brought it along when it connected
		return xds.Acked
	}
	return xds.Pending
}

// shortType is "Cluster" for "type.googleapis.com/envoy.config.cluster.v3.Cluster".
func shortType(url string) string { return url[strings.LastIndexAny(url, "./")+1:] }

// writeJSON answers v, one of the types in wire.go. A reader that went away is its own business.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) //nolint:errchkjson // fails for the reader only
}
