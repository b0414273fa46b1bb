// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
)

// asked is when a source of keys is asked while Envoy asks for it all the time.
func asked(
	t *testing.T, k *Keeper, s *servers, from authentication.KeySource, during time.Duration,
) (at []time.Duration) {
	t.Helper()
	began := time.Now()
	for time.Since(began) < during {
		before := s.asked
		k.get(t.Context(), from)
		synctest.Wait()
		if s.asked > before {
			at = append(at, time.Since(began))
		}
		time.Sleep(100 * time.Millisecond)
	}
	return at
}

// TestServersThatFailAreAskedLessOften, whatever is wrong with what they answer, and as soon as ever once they have
// given keys.
func TestServersThatFailAreAskedLessOften(t *testing.T) {
	for what, bad := range map[string]string{"away": "", "no keys": none, "no JSON": "<html>", "secret": secret[0]} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &servers{answer: bad}
				k := keeper(s)
				from := source("shop", 0)
				lessOften := func(at []time.Duration) {
					t.Helper()
					least := retry
					for n := range at[1:] {
						pause := at[n+1] - at[n]
						require.GreaterOrEqual(t, pause, least)
						require.LessOrEqual(t, pause, least*5/4+100*time.Millisecond)
						least = min(2*least, patience)
					}
					require.Equal(t, patience, least)
				}
				lessOften(asked(t, k, s, from, 10*time.Minute))

				s.say(set)
				time.Sleep(patience * 5 / 4)
				require.Equal(t, set, string(k.get(t.Context(), from)))
				s.say(bad)
				time.Sleep(from.CacheFor)
				lessOften(asked(t, k, s, from, 10*time.Minute))
			})
		})
	}
}

// TestAgentsDontAskAtOnce a server that fails all of them.
func TestAgentsDontAskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pauses := map[time.Duration]bool{}
		for range 20 {
			k := keeper(&servers{})
			require.Empty(t, k.get(t.Context(), source("shop", 0)))
			e := k.entry(source("shop", 0))
			pauses[e.again.Sub(e.tried)] = true
		}
		require.Greater(t, len(pauses), 10)
	})
}

// TestKeysBeyondTheShareAreAskedForLessOften: they don't push out those that are kept, and Envoy gets them, but not
// each time that it asks. What it asks for no more makes room.
func TestKeysBeyondTheShareAreAskedForLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := `{"keys":[{"kid":"` + strings.Repeat("x", 60<<10) + `",` + strings.TrimPrefix(set, `{"keys":[{`)
		k := New("", funcr.New(func(string, string) {}, funcr.Options{}), prometheus.NewRegistry())
		fetched := map[string]int{}
		k.fetch = func(_ context.Context, s authentication.KeySource) ([]byte, error) {
			fetched[s.URI]++
			return []byte(large), nil
		}
		const some = 50
		within := share / len(large)
		ask := func(first, n int) {
			for ; first < n; first++ {
				k.get(t.Context(), source("shop", first))
				synctest.Wait()
			}
		}
		for n := range some {
			require.Equal(t, large, string(k.get(t.Context(), source("shop", n))), "the first time")
		}
		const minutes = 10
		for range minutes * 12 {
			time.Sleep(authentication.AskAgainFor)
			ask(0, some)
		}
		for n := range some {
			most := 1 + 2*minutes + 4
			if n < within {
				most = 1 + minutes/5
			}
			require.LessOrEqual(t, fetched[source("shop", n).URI], most, n)
			require.Greater(t, fetched[source("shop", n).URI], 1, n)
		}
		told := map[counts.Kind]int{}
		for _, c := range k.Take(true) {
			told[c.Kind]++
			require.Equal(t, c.Kind == counts.KeysStale, strings.Contains(c.Why, "2 MiB"))
		}
		require.Equal(t, map[counts.Kind]int{counts.KeysFetched: within, counts.KeysStale: some - within}, told)

		for range 20 {
			time.Sleep(authentication.AskAgainFor)
			ask(within, some)
		}
		for n := within; n < some; n++ {
			require.NotNil(t, k.entry(source("shop", n)).keys, "the others are asked for no more")
		}
	})
}

// TestTheOperatorIsToldOfKeys: of each turn and of failures once, of all to whoever is new, first of what fails.
func TestTheOperatorIsToldOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{}
		k := keeper(s)
		from := source("shop", 0)
		row := func(kind counts.Kind, value uint64, since time.Time, why string) []counts.Count {
			return []counts.Count{{
				Series: counts.Series{Kind: kind, Destination: from.Name()}, Value: value, Since: since, Last: time.Now(), Why: why,
			}}
		}
		next := func() {
			time.Sleep(from.CacheFor)
			k.get(t.Context(), from)
			synctest.Wait()
		}
		began := time.Now()
		k.get(t.Context(), from)
		require.Equal(t, row(counts.KeysMissing, 1, began, "away"), k.Take(false))
		require.Empty(t, k.Take(false))
		require.Len(t, k.Take(true), 1)
		next()
		require.Equal(t, row(counts.KeysMissing, 2, began, "away"), k.Take(false))
		s.say(set)
		next()
		require.Equal(t, row(counts.KeysFetched, 1, time.Now(), ""), k.Take(false))
		next()
		require.Empty(t, k.Take(false), "as before")
		s.say(none)
		next()
		require.Equal(t, row(counts.KeysStale, 1, time.Now(), errNoKeys.Error()), k.Take(false))

		s.say(set)
		for n := range 2 * counts.MaxKeys {
			k.get(t.Context(), source("shop", 10+n))
		}
		told := k.Take(true)
		require.Len(t, told, counts.MaxKeys)
		require.Equal(t, counts.KeysStale, told[0].Kind)
	})
}

// TestNoSecretIsTold: URIs may have some, of which neither statuses nor logs say a word, nor of what servers say.
func TestNoSecretIsTold(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "fetch.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	answers := make(chan func(net.Conn), 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			(<-answers)(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte(text))
		}
	}
	for what, answer := range map[string]func(net.Conn){
		"the answer is 503 Service Unavailable": says("HTTP/1.1 503 s3cret\r\nContent-Length: 0\r\n\r\n"),
		"the answer is 599":                     says("HTTP/1.1 599 s3cret\r\nContent-Length: 0\r\n\r\n"),
		"the proxy gives no answer":             says(""),
		"there is no answer within 200ms":       func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
	} {
		log := &strings.Builder{}
		k := New(socket, funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{}), prometheus.NewRegistry())
		from := source("shop", 0)
		from.Timeout = 200 * time.Millisecond
		from.URI = "http://s3cret:s3cret@login.example/keys?token=s3cret#s3cret"
		answers <- answer
		require.Empty(t, k.get(t.Context(), from))
		told := k.Take(false)
		require.Len(t, told, 1)
		require.Contains(t, told[0].Why, what)
		require.NotContains(t, told[0].Why+told[0].Destination, "s3cret")
		require.Contains(t, log.String(), "http://login.example/keys")
		require.NotContains(t, log.String(), "s3cret")
	}
	_, err = through(socket).fetch(t.Context(), authentication.KeySource{URI: "http://s3cret:%zz@login.example"})
	require.ErrorIs(t, err, errNoURI)
	require.NotContains(t, err.Error(), "s3cret")
	require.Empty(t, shown("http://s3cret:%zz@login.example"))
}
