// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// limitsOfReference are what the service is told, in its own words.
const limitsOfReference = `
domain: shop
descriptors:
- key: user
  rate_limit: {unit: hour, requests_per_unit: 2}
- key: who
  descriptors:
  - key: what
    value: reviews
    rate_limit: {unit: hour, requests_per_unit: 5}
`

// reference runs the reference of rate limit services at an address.
func reference(t *testing.T, at netip.Addr) {
	t.Helper()
	dir := t.TempDir()
	binary, limits := filepath.Join(dir, "ratelimit"), filepath.Join(dir, "limits")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = filepath.Join("..", "ratelimit")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, os.MkdirAll(filepath.Join(limits, "config"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(limits, "config", "shop.yaml"), []byte(limitsOfReference), 0o600))
	log := &output{}
	cmd := exec.Command(binary, "-host", at.String(), "-limits", limits)
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := xdstest.StartTied(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Log(log.String())
		}
	})
	eventually.True(t, "the service is healthy", func() bool {
		r, err := http.Get("http://" + netip.AddrPortFrom(at, 8080).String() + "/healthcheck")
		return err == nil && r.Body.Close() == nil && r.StatusCode == http.StatusOK
	})
}

// TestGlobalRateLimitByTheReference: what a policy asks for is what the reference of such services understands: by a
// header, by the caller's identity together with a fixed value, and with the time to wait. What it says of that in
// headers arrives, with answers and refusals.
func TestGlobalRateLimitByTheReference(t *testing.T) {
	w := newWorld(t)
	service := w.address()
	reference(t, service)
	e, _ := w.pod(appID, &echo{})
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, nil)
	c := w.caller(clientID).client(t, dialled, nil)
	other := w.caller(appID).client(t, dialled, nil)
	at := model.ServicePort{Namespace: "limits", Service: "ratelimit", Port: 8081}
	w.backend(at, model.ProtocolHTTP2, model.Endpoint{Address: netip.AddrPortFrom(service, 8081)})
	limit := model.GlobalLimit{
		Service: at, Domain: "shop", Timeout: 5 * time.Second, Closed: true,
		Descriptors: [][]model.LimitEntry{{{Key: "who"}, {Key: "what", Value: "reviews"}}, {{Key: "user", Header: "X-User"}}},
	}
	// Once a fault shows, all requests go by this table.
	w.does(model.Requests{GlobalLimit: &limit, Abort: &model.Abort{Status: http.StatusTeapot, Percent: 100}})
	eventually.True(t, "the table", func() bool {
		return do(t, other, http.MethodGet, "http://web/", "X-User", "warm").status != http.StatusOK
	})
	w.does(model.Requests{GlobalLimit: &limit})
	get := func(c *http.Client, user string) reply {
		return do(t, c, http.MethodGet, "http://web/", "X-User", user)
	}
	for _, want := range []struct {
		user   string
		status int
	}{{"a", 200}, {"a", 200}, {"a", 429}, {"b", 200}, {"b", 200}, {"c", 429}} { // five by the identity, refused ones too
		r := get(c, want.user)
		require.Equal(t, want.status, r.status, want.user)
		for _, header := range []string{"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} {
			require.NotEmpty(t, r.header.Get(header), "%s: %s", want.user, header)
		}
		if want.status == http.StatusTooManyRequests {
			wait, err := strconv.Atoi(r.header.Get("Retry-After"))
			require.NoError(t, err)
			require.LessOrEqual(t, wait, 3600)
			require.Positive(t, wait)
		}
	}
	require.Equal(t, http.StatusOK, get(other, "d").status, "another identity has another limit")
}
