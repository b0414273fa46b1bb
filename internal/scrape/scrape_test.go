// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// asked is a guarded server that a test asks.
type asked struct {
	t      *testing.T
	url    string
	client *http.Client
}

func start(t *testing.T, g *Guard) asked {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, "measured 1\n")
	})
	go func() { done <- serveOn(ctx, l, g.Protect(mux)) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(c.CloseIdleConnections)
	return asked{t, "https://" + l.Addr().String(), c}
}

func (a asked) get(path, token string) (int, string) {
	a.t.Helper()
	r, err := http.NewRequest(http.MethodGet, a.url+path, nil)
	require.NoError(a.t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := a.client.Do(r)
	require.NoError(a.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(a.t, err)
	return res.StatusCode, string(body)
}

// TestMetricsAreForThoseWhoMayReadThem asks a real API server, by the role that is shipped.
func TestMetricsAreForThoseWhoMayReadThem(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{})
	c, err := client.New(cfg, client.Options{})
	require.NoError(t, err)
	roles, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", "rbac", "user_roles.yaml"))
	require.NoError(t, err)
	for _, o := range apiserver.Objects(t, string(roles)) {
		require.NoError(t, c.Create(t.Context(), o))
	}
	token := func(name string) string {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		require.NoError(t, c.Create(t.Context(), account))
		r := &authenticationv1.TokenRequest{}
		require.NoError(t, c.SubResource("token").Create(t.Context(), account, r))
		return r.Status.Token
	}
	stranger, collector := token("stranger"), token("collector")
	require.NoError(t, c.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "collector"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "fairway-metrics"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "collector"}},
	}))
	g, err := NewGuard(cfg, logr.Discard())
	require.NoError(t, err)
	s := start(t, g)
	eventually.True(t, "the right is known", func() bool { // RBAC is read from a cache
		g.refused.RemoveAll(func(any) bool { return true })
		code, _ := s.get("/metrics", collector)
		return code == http.StatusOK
	})
	_, body := s.get("/metrics", collector)
	require.Equal(t, "measured 1\n", body)
	code, body := s.get("/metrics", stranger)
	require.Equal(t, http.StatusForbidden, code)
	require.Contains(t, body, "system:serviceaccount:default:stranger may not get /metrics")
	code, _ = s.get("/other", collector)
	require.Equal(t, http.StatusForbidden, code, "another path is another right")
	for _, bad := range []string{"", "nonsense", collector[:len(collector)-4] + "AAAA"} {
		code, body = s.get("/metrics", bad)
		require.Equal(t, http.StatusUnauthorized, code)
		require.NotContains(t, body, "measured")
	}
}

// TestReviewsOfStrangersAreBounded has an API server that nobody reaches: it is not asked without end, and nobody gets
// in.
func TestReviewsOfStrangersAreBounded(t *testing.T) {
	reviews := make(chan struct{}, 1000)
	api := http.NewServeMux()
	api.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		reviews <- struct{}{}
		http.Error(w, "away", http.StatusServiceUnavailable)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: api, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	g, err := NewGuard(&rest.Config{Host: "http://" + l.Addr().String()}, logr.Discard())
	require.NoError(t, err)
	s := start(t, g)
	codes := map[int]int{}
	for i := range 50 {
		code, body := s.get("/metrics", fmt.Sprintf("token-%d", i))
		require.NotContains(t, body, "measured")
		codes[code]++
	}
	require.Equal(t, 50, codes[http.StatusServiceUnavailable]+codes[http.StatusTooManyRequests])
	require.GreaterOrEqual(t, codes[http.StatusTooManyRequests], 30)
	require.LessOrEqual(t, len(reviews), 20)
}

func TestCertificatesAreReplacedInTime(t *testing.T) {
	now := time.Now()
	s := &selfSigned{now: func() time.Time { return now }}
	first, err := s.refresh(nil)
	require.NoError(t, err)
	again, err := s.refresh(nil)
	require.NoError(t, err)
	require.Same(t, first, again)
	now = now.Add(certificateLife/2 + time.Hour)
	next, err := s.refresh(nil)
	require.NoError(t, err)
	require.NotSame(t, first, next)
	require.True(t, next.Leaf.NotAfter.After(now.Add(certificateLife/2)))
}
