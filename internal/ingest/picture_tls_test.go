// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// tlsWords say how an application is spoken TLS with.
func tlsWords(t *model.BackendTLS) string {
	switch {
	case t == nil:
		return ""
	case t.Refused:
		return "\n    by TLS: nobody, for nothing could be verified"
	}
	by := "the system's authorities"
	if !t.System {
		by = fmt.Sprintf("%d authorities (%.4x)", strings.Count(t.CAs, "BEGIN"), sha256.Sum256([]byte(t.CAs)))
	}
	return fmt.Sprintf("\n    by TLS: asked for %s, is %s, by %s", t.Hostname,
		strings.Join(append(t.Hosts[:len(t.Hosts):len(t.Hosts)], t.URIs...), " or "), by)
}

// clusterList are the ports that clusters are of.
func clusterList(clusters []string) string {
	var out []string
	for _, name := range clusters {
		if ns, of, _, external := names.ParseExternal(name); external {
			out = append(out, ns+"/"+of+" outside")
			continue
		}
		ns, svc, port, ok := names.ParseServicePort(name, "service")
		tls := ""
		if !ok {
			ns, svc, port, _ = names.ParseServicePort(name, names.PrefixTLS)
			tls = " in TLS"
		}
		out = append(out, portList([]model.ServicePort{{Namespace: ns, Service: svc, Port: port}})+tls)
	}
	return strings.Join(out, ", ")
}

func inTLS(so bool) string {
	if so {
		return " in TLS"
	}
	return ""
}
