// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import "net/http"

// AgentHandler is an agent's read-only interface on the loopback address. snapshot is called once per question.
func AgentHandler(snapshot func() Agent, envoy *Envoy, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+PathMetrics, metrics)
	mux.HandleFunc("GET "+PathVersion, handleVersion(envoy))
	mux.HandleFunc("GET "+PathAgent, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, snapshot()) })
	mux.Handle("GET "+PathEnvoy+"{path...}", envoy.handler())
	return addressedLocally(mux)
}
