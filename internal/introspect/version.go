// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// oldestEnvoy is the first version that has all that the mesh configures. An older one would reject some of it, and go
// on without that.
var oldestEnvoy = version.MustParseGeneric("1.40.0")

// checkVersion says what is wrong with Envoy's version, which its admin interface has as COMMIT/VERSION/STATE/BUILD/TLS
// (server_info, api/envoy/admin/v3/server_info.proto).
func (e *Envoy) checkVersion(ctx context.Context) error {
	if e.supported.Load() {
		return nil
	}
	res, err := e.get(ctx, "server_info", nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	var info struct {
		Version string `json:"version"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&info); err != nil {
		return fmt.Errorf("the proxy doesn't say which version it is: %w", err)
	}
	parts := strings.Split(info.Version, "/")
	if len(parts) < 2 {
		return fmt.Errorf("the proxy says a version that can't be read: %.100q", info.Version)
	}
	is, err := version.ParseGeneric(parts[1])
	if err != nil {
		return fmt.Errorf("the proxy says a version that can't be read: %.100q", info.Version)
	}
	if is.LessThan(oldestEnvoy) {
		return fmt.Errorf("the proxy is Envoy %s, and the mesh needs %s or later: set spec.images of the Mesh or of "+
			"ProxyParameters", is, oldestEnvoy)
	}
	e.supported.Store(true)
	return nil
}
