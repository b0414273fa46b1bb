// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"time"

	"github.com/fairway-mesh/fairway/internal/model"
)

func externalAuthCase() bundle {
	rule := func(prefix string, a model.ExternalAuth, more ...model.Filter) model.Rule {
		a.Service, a.Timeout = model.ServicePort{Namespace: "auth", Service: "keys", Port: 80}, time.Second
		return model.Rule{
			Match:   path(model.MatchPrefix, prefix),
			Filters: append([]model.Filter{{ExternalAuth: &a}}, more...), Backends: backends(to(web, 1)),
		}
	}
	return routed(rules(
		rule("/grpc", model.ExternalAuth{GRPC: true}),
		rule("/grpc-shown", model.ExternalAuth{GRPC: true, Shown: []string{"Authorization", "X-Tenant"}, MaxBody: 4096}),
		rule("/http", model.ExternalAuth{}),
		rule("/http-all", model.ExternalAuth{
			Path: "/check/", Shown: []string{"Cookie"}, Taken: []string{"X-User", "Cookie", "Authorization"}, MaxBody: 1,
		}),
		rule("/redirect", model.ExternalAuth{}, redirectTo(model.Redirect{Hostname: "example.org", StatusCode: 302})...),
		rule("/invalid", model.ExternalAuth{Invalid: true}),
		rule("/refused", model.ExternalAuth{Refused: true}),
		rule("/bad-name", model.ExternalAuth{Shown: []string{"x-*"}}),
		rule("/steers", model.ExternalAuth{Taken: []string{"X-Envoy-Retry-On"}}),
		rule("/frames", model.ExternalAuth{Taken: []string{"Content-Length"}}),
		rule("/bad-path", model.ExternalAuth{Path: "/a/%2e%2e"}),
	))
}

// askedCase has a port whose policy has a service asked, and ways that need another, several, none, or one that can't
// be asked.
func askedCase() bundle {
	service := func(name string) model.ExternalAuth {
		return model.ExternalAuth{
			Service: model.ServicePort{Namespace: "auth", Service: name, Port: 80}, GRPC: true, Timeout: time.Second,
		}
	}
	guards := func(a ...model.ExternalAuth) (out []model.Guard) {
		for _, asked := range a {
			out = append(out, model.Guard{Asked: []model.ExternalAuth{asked}})
		}
		return out
	}
	one, two, open, refused := service("one"), service("two"), service("open"), service("refused")
	one.MaxBody, two.MaxBody = 100, 200
	open.Open, open.Invalid, refused.Refused = true, true, true
	way := func(prefix string, g []model.Guard) model.Rule {
		b := to(webV1, 1)
		b.Guards = g
		return model.Rule{Match: path(model.MatchPrefix, prefix), Backends: backends(b)}
	}
	split := way("/split", guards(two))
	split.Backends = append(split.Backends, to(webV2, 1))
	t := rules(
		way("/one", guards(one, one)), way("/both", guards(one, two)), way("/none", nil), way("/open", guards(open)),
		way("/refused", guards(refused)), split,
	)
	t.Guards = guards(one)
	return routed(t)
}
