// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairway-mesh/fairway/internal/model"
)

// reader is a server that takes paths as the most careless one would: it undoes escapes once and again, takes
// backslashes for slashes, cuts parameters off, resolves dots, and knows no case.
type reader struct {
	mu sync.Mutex
	// seen are the requests as they came, by how it reads them.
	seen map[string][]string
}

func (r *reader) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	raw, _, _ := strings.Cut(q.RequestURI, "?")
	for _, as := range readings(raw) {
		r.seen[as] = append(r.seen[as], q.RequestURI)
	}
	fmt.Fprintln(w, "ok")
}

// readings of a path.
func readings(raw string) []string {
	all := []string{raw}
	for range 2 {
		for _, p := range slices.Clone(all) {
			if plain, err := url.PathUnescape(p); err == nil {
				all = append(all, plain)
			}
		}
	}
	for _, p := range slices.Clone(all) {
		p = strings.ReplaceAll(p, `\`, "/")
		elements := strings.Split(p, "/")
		for n, e := range elements {
			elements[n], _, _ = strings.Cut(e, ";")
		}
		all = append(all, p, strings.Join(elements, "/"))
	}
	for n, p := range all {
		all[n] = strings.ToLower(path.Clean("/" + p))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// under finds what the server read as a path, or below it.
func (r *reader) under(dir string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for as, requests := range r.seen {
		if as == dir || strings.HasPrefix(as, dir+"/") {
			out = append(out, fmt.Sprintf("%q as %q", requests[0], as))
		}
	}
	return out
}

// TestGuardsAreNotSpelledAround sends random spellings. Below what is denied the careless server must read none; and it
// must read nothing else than what is allowed, where little is.
func TestGuardsAreNotSpelledAround(t *testing.T) {
	for name, tc := range map[string]struct {
		policy model.AccessPolicy
		wrong  func(*reader) []string
	}{
		"denied": {
			accessPolicy("d", true,
				fromAccount("", pathIs(model.MatchPrefix, "/admin")), fromAccount("", pathIs(model.MatchExact, "/a/b"))),
			func(r *reader) []string {
				return append(r.under("/admin"), slices.DeleteFunc(r.under("/a/b"), func(s string) bool {
					return !strings.HasSuffix(s, `as "/a/b"`)
				})...)
			},
		},
		"allowed": {
			accessPolicy("a", false, fromAccount("", pathIs(model.MatchPrefix, "/ok"))),
			func(r *reader) []string { return append(r.under("/admin"), r.under("/a")...) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shop{world: newWorld(t)}
			r := &reader{seen: map[string][]string{}}
			e, _ := s.pod(appID, r)
			s.backend(web, model.ProtocolHTTP, e)
			dialled := s.guard(onRequests(tc.policy))
			c := &rawCaller{t: t, dial: func() (net.Conn, error) { return s.caller(clientID).dial(t.Context(), dialled) }}
			random := rand.New(rand.NewPCG(1, 2))
			statuses := map[int]int{}
			for range 3000 {
				statuses[c.get(spelling(random))]++
			}
			t.Log(statuses)
			if statuses[200] < 100 || statuses[403] < 100 {
				t.Errorf("nothing was tried: %v", statuses)
			}
			for _, wrong := range tc.wrong(r) {
				t.Errorf("the server reads %s", wrong)
			}
		})
	}
}

// spelling of a path that may lead to where it must not.
func spelling(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	var b strings.Builder
	if r.IntN(4) == 0 {
		b.WriteString("/ok")
	}
	for range 1 + r.IntN(4) {
		b.WriteString(pick("/", "/", "/", "/", "//", "%2f", "%2F", `\`, "%5c", "/./", "/;/", "/;x=1/", "%252f", "/%2e/"))
		word := pick("admin", "a", "b", "ok", "..", "..", "x", "ADMIN", "%2e%2e", ".%2e", "..;", "", "a/b")
		if r.IntN(4) == 0 && word != "" && !strings.ContainsAny(word, "%/") {
			n := r.IntN(len(word))
			word = word[:n] + fmt.Sprintf("%%%02x", word[n]) + word[n+1:]
		}
		b.WriteString(word)
		b.WriteString(pick("", "", "", "", ";", ";x", "%3b", "%00", "%20", "?", "?x=/ok", "%23", ".",
			"\xff", "%c0%af", "%u002f", "#"))
	}
	p := b.String()
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	return p
}

// rawCaller sends request lines as they are, on one connection as long as it lasts.
type rawCaller struct {
	t    *testing.T
	dial func() (net.Conn, error)
	c    net.Conn
	in   *bufio.Reader
}

func (r *rawCaller) get(target string) int {
	r.t.Helper()
	return r.send("GET " + target + " HTTP/1.1\r\nHost: web\r\n\r\n")
}

func (r *rawCaller) send(request string) int {
	r.t.Helper()
	for range 2 {
		if r.c == nil {
			c, err := r.dial()
			if err != nil {
				r.t.Fatal(err)
			}
			r.c, r.in = c, bufio.NewReader(c)
		}
		_, _ = io.WriteString(r.c, request)
		resp, err := http.ReadResponse(r.in, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			if resp.Close || err != nil {
				_ = r.c.Close()
				r.c = nil
			}
			return resp.StatusCode
		}
		_ = r.c.Close()
		r.c = nil
	}
	r.t.Fatalf("%q: no answer", request)
	return 0
}
