// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// TestEnvoyAcceptsGoldens shows every golden case to a real Envoy.
func TestEnvoyAcceptsGoldens(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, build := range cases {
		t.Run(name, func(t *testing.T) { validate(t, binary, build()) })
	}
}

// TestEnvoyAcceptsAnything shows a real Envoy what comes of models that no ingest would make: what passes our own check
// must pass Envoy's.
func TestEnvoyAcceptsAnything(t *testing.T) {
	binary := xdstest.Binary(t)
	var b bundle
	for seed := range uint64(400) {
		g := &generator{rand.New(rand.NewPCG(seed, 3))}
		table := g.table()
		table.Port.Service = fmt.Sprintf("web-%d", seed)
		rc, _ := Configuration(trustDomain, table)
		b.routes = append(b.routes, rc)
	}
	validate(t, binary, b)
}

// TestEnvoyAcceptsNamesOfSessions: whatever is a name to HTTP, and has signs of Envoy's formats in it.
func TestEnvoyAcceptsNamesOfSessions(t *testing.T) {
	s := model.SessionPersistence{Name: "a%b%"}
	cookie := model.Rule{SessionPersistence: &s, Backends: backends(to(web, 1), to(webV2, 1))}
	header := cookie
	header.SessionPersistence = &model.SessionPersistence{Name: s.Name, Header: true}
	validate(t, xdstest.Binary(t), routed(rules(cookie, header)))
}

// validate runs Envoy in validation mode. What would come by RDS stands inline instead.
func validate(t *testing.T, binary string, b bundle) {
	t.Helper()
	var o bootstrap.Options
	for _, rc := range b.routes {
		o.Listeners = append(o.Listeners, translatetest.Inline(rc, Filters()))
	}
	translatetest.Validate(t, binary, o)
}
