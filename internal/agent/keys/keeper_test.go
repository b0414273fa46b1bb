// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
)

const (
	set  = `{"keys":[{"kty":"EC","crv":"P-256","x":"WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis","y":"y77t-RvAHRKTsSGdIYUfweuOvwrvDD-Q3Hv5J0fSKbE"}]}`
	none = `{"keys":[]}`
)

// secret keys, alone and beside or behind one that isn't.
var secret = []string{
	`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`,
	strings.Replace(set, `[{`, `[{"kty":"oct","k":"c2VjcmV0"},{`, 1),
	strings.Replace(set, `}]`, `},{"kty":"oct","k":"c2VjcmV0"}]`, 1),
	strings.Replace(set, `}]`, `,"d":"AQ"}]`, 1),
	strings.Replace(set, `"kty":"EC"`, `"kty":"oct","k":"c2VjcmV0","kty":"EC"`, 1),
	strings.Replace(set, `"kty":"EC"`, `"kty":"oct","k":"c2VjcmV0","KTY":"EC"`, 1),
	strings.Replace(set, `{"keys"`, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}],"Keys"`, 1),
}

func source(namespace string, n int) authentication.KeySource {
	return authentication.KeySource{
		Namespace: namespace, Cluster: "service/keys/login/80", URI: fmt.Sprintf("http://login.example/%d", n),
		CacheFor: 5 * time.Minute, Timeout: 5 * time.Second,
	}
}

// servers of keys answer what they are told to.
type servers struct {
	mu     sync.Mutex
	answer string
	asked  int
	hang   bool
}

func (s *servers) say(answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *servers) fetch(ctx context.Context, _ authentication.KeySource) ([]byte, error) {
	s.mu.Lock()
	s.asked++
	answer, hang := s.answer, s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if answer == "" {
		return nil, errors.New("away")
	}
	return []byte(answer), nil
}

func keeper(s *servers) *Keeper {
	k := New("", logr.Discard(), prometheus.NewRegistry())
	k.fetch = s.fetch
	return k
}

// TestKeysStayUntilBetterOnesCome, and nobody waits for a server where there are some.
func TestKeysStayUntilBetterOnesCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{}
		k := keeper(s)
		a := source("shop", 0)
		get := func() string { return string(k.get(t.Context(), a)) }
		require.Empty(t, get())
		require.Empty(t, get())
		require.Equal(t, 1, s.asked, "a server that is away is not asked again at once")
		time.Sleep(retry * 5 / 4)
		s.say(set)
		require.Equal(t, set, get())
		later := strings.Replace(set, `"kty"`, `"kid":"next","kty"`, 1)
		s.say(later)
		require.Equal(t, set, get())
		time.Sleep(a.CacheFor - authentication.AskAgainFor)
		require.Equal(t, set, get(), "nobody waits")
		synctest.Wait()
		require.Equal(t, later, get())
		for _, bad := range append([]string{none, "", "<html>", `{"keys":[{"kty":"EC"}]}`, `{"a":"b"}`}, secret...) {
			s.say(bad)
			before := s.asked
			time.Sleep(a.CacheFor)
			require.Equal(t, later, get())
			synctest.Wait()
			require.Equal(t, before+1, s.asked)
			require.Equal(t, later, get(), "%q", bad)
		}
		s.hang = true
		time.Sleep(a.CacheFor)
		began := time.Now()
		require.Equal(t, later, get())
		require.Zero(t, time.Since(began))
		time.Sleep(2 * idle)
		k.get(t.Context(), source("other", 0))
		require.NotContains(t, k.of, "shop", "what nobody asks for goes")
	})
}

// TestUnknownKeysAreLookedFor soon, and no sooner than a server can bear, however many come with made-up ones.
func TestUnknownKeysAreLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{answer: set}
		k := keeper(s)
		a, gone := source("shop", 0), source("shop", 1)
		k.get(t.Context(), gone)
		k.get(t.Context(), a)
		for range 60 {
			time.Sleep(time.Second)
			k.get(t.Context(), a)
			for range 10 {
				k.Renew(t.Context())
			}
			synctest.Wait()
		}
		require.Equal(t, 2+2, s.asked)
	})
}

// TestNoNamespacePushesOutAnother: what one's policies ask for takes no room of others.
func TestNoNamespacePushesOutAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{answer: set}
		k := keeper(s)
		require.Equal(t, set, string(k.get(t.Context(), source("shop", 0))))
		s.say(`{"keys":[{"kid":"` + strings.Repeat("x", 60<<10) + `",` + strings.TrimPrefix(set, `{"keys":[{`))
		for n := range 500 {
			require.NotEmpty(t, k.get(t.Context(), source("hostile", n)))
		}
		bytes := 0
		for _, e := range k.of["hostile"] {
			bytes += len(e.keys)
		}
		require.LessOrEqual(t, bytes, share)
		s.say("")
		require.Equal(t, set, string(k.get(t.Context(), source("shop", 0))))
	})
}

func TestWhatIsASet(t *testing.T) {
	require.NoError(t, unusable([]byte(set)))
	require.NoError(t, unusable([]byte(`{"a":"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}`)))
	for _, bad := range append([]string{"", "{}", "[]", none, `{"keys":"x"}`, `{"a":"b"}`}, secret...) {
		require.Error(t, unusable([]byte(bad)), bad)
	}
	require.ErrorIs(t, unusable([]byte(secret[0])), errSecret)
}

// TestServersAreAskedThroughTheProxy: for what the policy says and nothing else, whatever they answer.
func TestServersAreAskedThroughTheProxy(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "fetch.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	asked := make(chan *http.Request, 10)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			asked <- r
			switch r.URL.Path {
			case "/large":
				_, _ = w.Write(make([]byte, model.MostKeys+1))
			case "/elsewhere":
				http.Redirect(w, r, "/keys", http.StatusFound)
			case "/keys":
				_, _ = w.Write([]byte(set))
			}
		})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	p := through(socket)
	of := source("shop", 0)
	of.URI = "https://user:pass@login.example:8443/keys?a=b#c"
	body, err := p.fetch(t.Context(), of)
	require.NoError(t, err)
	require.Equal(t, set, string(body))
	r := <-asked
	require.Equal(t, "login.example:8443/keys?a=b", r.Host+r.RequestURI)
	require.Equal(t, of.Cluster, r.Header.Get(names.HeaderCluster))
	require.Empty(t, r.Header.Get("Authorization"))
	of.URI = "http://login.example/large"
	_, err = p.fetch(t.Context(), of)
	require.ErrorContains(t, err, "more than 65536 bytes")
	of.URI = "http://login.example/elsewhere"
	_, err = p.fetch(t.Context(), of)
	require.ErrorContains(t, err, "302")
	require.Len(t, asked, 2)
}

// TestWhatIsNoSourceIsRefused, and takes no room.
func TestWhatIsNoSourceIsRefused(t *testing.T) {
	k := keeper(&servers{answer: set})
	for _, query := range []string{
		"", "?cluster=a", "?cluster=a&uri=b&cacheFor=x&timeout=1s", "?cluster=a&uri=b&cacheFor=1s&timeout=-1s",
	} {
		w := &answer{header: http.Header{}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://agent/keys"+query, nil)
		require.NoError(t, err)
		k.ServeHTTP(w, r)
		require.Equal(t, http.StatusBadRequest, w.status, query)
	}
	require.Empty(t, k.of)
}

type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }
