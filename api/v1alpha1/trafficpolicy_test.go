// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import "testing"

// TestTrafficPolicyValidation: what can't be carried out is refused, in words that say what to do.
func TestTrafficPolicyValidation(t *testing.T) {
	c := connect(t)
	for _, tc := range []struct {
		spec    string // beside targetRefs
		refused string // part of the message; accepted where empty
	}{
		{"", ""},
		{"loadBalancing: {type: RoundRobin}", ""},
		{"loadBalancing: {type: Fastest}", "Unsupported value"},
		{"loadBalancing: {type: RingHash}", "need hashBy"},
		{"loadBalancing: {type: Random, hashBy: {sourceAddress: {}}}", "need hashBy"},
		{"loadBalancing: {type: RingHash, hashBy: {}}", "exactly one"},
		{"loadBalancing: {type: RingHash, hashBy: {sourceAddress: {}}}", ""},
		{"loadBalancing: {type: Maglev, hashBy: {cookie: {name: user, ttl: 1h}}}", ""},
		{"loadBalancing: {type: Maglev, hashBy: {cookie: {name: user, ttl: soon}}}", "should match"},
		{"loadBalancing: {type: Maglev, hashBy: {cookie: {name: 'a b'}}}", "should match"},
		{"loadBalancing: {type: Maglev, hashBy: {header: {name: X-User}}}", ""},
		{"loadBalancing: {type: Maglev, hashBy: {header: {name: X-User}, sourceAddress: {}}}", "exactly one"},
		{"circuitBreaking: {}", ""},
		{"circuitBreaking: {maxConnections: 65536, maxPendingRequests: 1, maxRequests: 1, maxRetries: 0}", ""},
		{"circuitBreaking: {maxConnections: 65537}", "less than or equal to 65536"},
		{"circuitBreaking: {maxRequests: 0}", "greater than or equal to 1"},
		{"outlierDetection: {}", "set consecutive5xx"},
		{"outlierDetection: {consecutive5xx: 5}", ""},
		{"outlierDetection: {consecutiveGatewayErrors: 5, interval: 1s, baseEjectionTime: 10s, maxEjectionPercent: 100}", ""},
		{"outlierDetection: {consecutive5xx: 5, interval: 1ms}", "from 100ms to 1h"},
		{"outlierDetection: {consecutive5xx: 5, maxEjectionPercent: 101}", "less than or equal to 100"},
		{"connection: {connectTimeout: 1s, idleTimeout: 1m, maxConnectionDuration: 1h}", ""},
		{"connection: {tcpKeepalive: {time: 1m, interval: 5s, probes: 3}}", ""},
		{"connection: {connectTimeout: 2m}", "from 10ms to 1m"},
		{"connection: {idleTimeout: 2h}", "from 10ms to 1h"},
		{"connection: {maxConnectionDuration: 10ms}", "from 1s to 24h"},
		{"connection: {tcpKeepalive: {time: 100ms}}", "should match"},
		{"connection: {tcpKeepalive: {probes: 200}}", "less than or equal to 127"},
		{"rateLimit: {}", "set local"},
		{"rateLimit: {local: {requests: 100, unit: Minute}}", ""},
		{"rateLimit: {local: {requests: 0, unit: Minute}}", "greater than or equal to 1"},
		{"rateLimit: {local: {requests: 1, unit: Day}}", "Unsupported value"},
		{
			"rateLimit: {global: {backendRef: {name: l, port: 8081}, domain: d, descriptors: [" +
				"{entries: [{key: a, header: X-User}, {key: b, sourceIdentity: {}}, {key: c, value: d}]}]}}", "",
		},
		{"rateLimit: {global: {backendRef: {name: l, port: 8081}, domain: d, descriptors: []}}", "at least 1"},
		{
			"rateLimit: {global: {backendRef: {name: l, port: 8081}, domain: d, descriptors: [{entries: [{key: a}]}]}}",
			"exactly one",
		},
		{
			"rateLimit: {global: {backendRef: {name: l, port: 8081}, domain: d, timeout: 1m0s, descriptors: [" +
				"{entries: [{key: a, value: b}]}]}}", "should match",
		},
		{"faults: {}", "set delay"},
		{"faults: {delay: {fixed: 1s, percent: 50}, abort: {status: 503}}", ""},
		{"faults: {delay: {fixed: 2h}}", "from 1ms to 1h"},
		{"faults: {abort: {status: 100}}", "greater than or equal to 200"},
		{"faults: {abort: {status: 503, percent: 101}}", "less than or equal to 100"},
		{"buffering: {maxRequestKiB: 8192}", ""},
		{"buffering: {maxRequestKiB: 8193}", "less than or equal to 8192"},
		{"buffering: {maxResponseKiB: 8192}", ""},
		{"buffering: {maxRequestKiB: 1, maxResponseKiB: 1}", ""},
		{"buffering: {maxResponseKiB: 8193}", "less than or equal to 8192"},
		{"buffering: {maxResponseKiB: 0}", "greater than or equal to 1"},
		{"buffering: {}", "set maxRequestKiB"},
		{"compression: {algorithms: [Gzip, Brotli, Zstd]}", ""},
		{"compression: {algorithms: []}", "at least 1"},
		{"compression: {algorithms: [Gzip, Gzip]}", "Duplicate"},
		{"compression: {algorithms: [Deflate]}", "Unsupported value"},
	} {
		t.Run(tc.spec, func(t *testing.T) {
			manifest := "apiVersion: fairway.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p, namespace: default}\n" +
				"spec: {targetRefs: [{group: '', kind: Service, name: web}], " + tc.spec + "}"
			tries(t, c, manifest, tc.refused)
		})
	}
}

// TestTargetsOfTrafficPolicies are Services, which is said when one is written and not only in its status.
func TestTargetsOfTrafficPolicies(t *testing.T) {
	c := connect(t)
	const refused = "a TrafficPolicy targets Services"
	for target, problem := range map[string]string{
		"{group: '', kind: Service, name: web}":                                "",
		"{group: '', kind: Service, name: web, sectionName: http}":             "",
		"{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}":       refused,
		"{group: '', kind: Pod, name: web}":                                    refused,
		"{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}":    refused,
		"{group: networking.internal.knative.dev, kind: Service, name: hello}": refused,
	} {
		t.Run(target, func(t *testing.T) {
			manifest := "apiVersion: fairway.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p, namespace: default}\n" +
				"spec: {targetRefs: [" + target + "]}"
			tries(t, c, manifest, problem)
		})
	}
}
