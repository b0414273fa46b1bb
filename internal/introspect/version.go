// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/fairway-mesh/fairway/internal/buildinfo"
	"github.com/fairway-mesh/fairway/internal/names"
)

// oldestEnvoy is the first version that has all that the mesh configures. An older one would reject some of it, and go
// on without that.
var oldestEnvoy = version.MustParseGeneric("1.40.0")

// PathVersion of operator and agents answers Version.
const PathVersion = "/v1/version"

// Version is what a pod of the mesh runs.
type Version struct {
	Version string `json:"version"`
	// Commit that it was built from; empty where that isn't known.
	Commit string `json:"commit,omitempty"`
	// Envoy is the word of the agent's Envoy, COMMIT/VERSION/STATE/BUILD/TLS; empty of the operator, and if it doesn't
	// answer.
	Envoy string `json:"envoy,omitempty"`
}

// handleVersion answers Version; envoy is nil for the operator.
func handleVersion(envoy *Envoy) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := Version{Version: names.Version, Commit: buildinfo.Commit()}
		if envoy != nil {
			ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
			defer cancel()
			v.Envoy, _ = envoy.version(ctx) // that it doesn't answer is what readiness is about
		}
		writeJSON(w, v)
	}
}

// version is Envoy's, which its admin interface has as COMMIT/VERSION/STATE/BUILD/TLS (server_info,
// api/envoy/admin/v3/server_info.proto).
func (e *Envoy) version(ctx context.Context) (string, error) {
	res, err := e.get(ctx, "server_info", nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	var info struct {
		Version string `json:"version"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&info); err != nil {
		return "", fmt.Errorf("the proxy doesn't say which version it is: %w", err)
	}
	return info.Version, nil
}

// checkVersion says what is wrong with Envoy's version.
func (e *Envoy) checkVersion(ctx context.Context) error {
	if e.supported.Load() {
		return nil
	}
	said, err := e.version(ctx)
	if err != nil {
		return err
	}
	parts := strings.Split(said, "/")
	if len(parts) < 2 {
		return fmt.Errorf("the proxy says a version that can't be read: %.100q", said)
	}
	is, err := version.ParseGeneric(parts[1])
	if err != nil {
		return fmt.Errorf("the proxy says a version that can't be read: %.100q", said)
	}
	if is.LessThan(oldestEnvoy) {
		return fmt.Errorf("the proxy is Envoy %s, and the mesh needs %s or later: set spec.images of the Mesh or of "+
			"ProxyParameters", is, oldestEnvoy)
	}
	e.supported.Store(true)
	return nil
}
