// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// answer is what the test server says.
type answer struct {
	Status  int
	Name    string      `json:"name"`
	Pod     string      `json:"pod"`
	Remote  string      `json:"remote"`
	Path    string      `json:"path"`
	Headers http.Header `json:"headers"`
	Body    string
}

// from is the address that the server saw.
func (a answer) from() string {
	host, _, _ := net.SplitHostPort(a.Remote)
	return host
}

// exec runs the test tool in the first pod of a Deployment.
func (s *space) exec(ctx context.Context, app string, args ...string) (string, error) {
	var list corev1.PodList
	if err := world.client.List(ctx, &list, client.InNamespace(s.name), client.MatchingLabels{"app": app}); err != nil {
		return "", err
	}
	for i := range list.Items {
		if p := &list.Items[i]; p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
			return execIn(ctx, p, args...)
		}
	}
	return "", fmt.Errorf("no pod of %s runs in %s", app, s.name)
}

func execIn(ctx context.Context, p *corev1.Pod, args ...string) (string, error) {
	var out bytes.Buffer
	err := execTo(ctx, p, &out, args...)
	return out.String(), err
}

// execTo runs the test tool in a pod; what it prints goes to out as it comes.
func execTo(ctx context.Context, p *corev1.Pod, out io.Writer, args ...string) error {
	u := world.clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.Namespace).Name(p.Name).SubResource(
		"exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: p.Spec.Containers[0].Name, Command: append([]string{"/tool"}, args...), Stdout: true, Stderr: true,
		}, clientgoscheme.ParameterCodec).URL()
	e, err := executor(u)
	if err != nil {
		return err
	}
	var errs bytes.Buffer
	if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out, Stderr: &errs}); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return nil
}

func executor(u *url.URL) (remotecommand.Executor, error) {
	return remotecommand.NewWebSocketExecutor(world.config, http.MethodGet, u.String())
}

// get asks once from a pod of a Deployment. Flags are those of `tool get`.
func (s *space) get(from, url string, flags ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	out, err := s.exec(ctx, from, append(append([]string{"get"}, flags...), url)...)
	if err != nil {
		return answer{}, err
	}
	status, body, _ := strings.Cut(out, "\n")
	a := answer{Body: body}
	if a.Status, err = strconv.Atoi(strings.TrimSpace(status)); err != nil {
		return answer{}, fmt.Errorf("unexpected output %q", out)
	}
	_ = json.Unmarshal([]byte(body), &a) // an answer of another server has no name
	return a, nil
}

// answers waits until a URL answers 200 from the server of a name, and returns that answer.
func (s *space) answers(from, url, name string, flags ...string) answer {
	s.t.Helper()
	var got answer
	eventually.Passes(s.t, fmt.Sprintf("GET %s from %s", url, from), func(look require.TestingT) {
		var err error
		got, err = s.get(from, url, flags...)
		require.NoError(look, err)
		require.Equal(look, http.StatusOK, got.Status, got.Body)
		require.Equal(look, name, got.Name)
	})
	return got
}

// routed waits until a caller reaches a URL through the waypoint and all its answers come from the server of a name.
// The answers alone would not do: ten times the same version comes by chance as well.
func (s *space) routed(from, url, name string) {
	s.t.Helper()
	what := fmt.Sprintf("GET %s from %s goes through the waypoint", url, from)
	eventually.Passes(s.t, what, func(look require.TestingT) {
		a, err := s.get(from, url)
		require.NoError(look, err)
		require.NotEmpty(look, a.Headers.Get("X-Forwarded-Client-Cert"), "only a waypoint says who calls")
	})
	const n = 10
	eventually.Passes(s.t, fmt.Sprintf("GET %s from %s", url, from), func(look require.TestingT) {
		got := s.many(from, n, url)
		require.Equal(look, n, got.of(name), "%v", got)
	})
}

// refused are the ends of a client's error where the other side, or a proxy, closed the connection; the last is for one
// that was closed before the request was written. An error of anything else, of the name's look-up or of a pod that is
// gone, is no refusal, and neither is silence.
var refused = []string{
	": connection refused", ": connection reset by peer", ": EOF",
	": http: server closed idle connection",
}

// refuses waits until every one of many connections to a URL is refused, and sees that it stays so.
func (s *space) refuses(from, url string, flags ...string) {
	s.t.Helper()
	const n = 20
	attempt := func(look require.TestingT) {
		args := append([]string{"get", "-n", strconv.Itoa(n), "-c", strconv.Itoa(n), "--no-keepalive"}, flags...)
		out, err := s.exec(s.t.Context(), from, append(args, url)...)
		got := parseTally(out)
		require.NotEmpty(look, got, "%v: %s", err, out)
		for kind := range got {
			require.True(look, slices.ContainsFunc(refused, func(end string) bool {
				return strings.HasPrefix(kind, "error ") && strings.HasSuffix(kind, end)
			}), "want refusals only, got %v", got)
		}
	}
	eventually.Passes(s.t, fmt.Sprintf("%s refuses %s", url, from), attempt)
	attempt(s.t)
}

// tally is how often each kind of answer came.
type tally map[string]int

// of counts the answers of one server with status 200.
func (t tally) of(name string) int { return t["200 "+name] }

// failures are the answers that are not 200.
func (t tally) failures() tally {
	out := tally{}
	for kind, n := range t {
		if !strings.HasPrefix(kind, "200 ") {
			out[kind] = n
		}
	}
	return out
}

// many asks n times, each time on a connection of its own: what a node proxy decides, it decides per connection.
func (s *space) many(from string, n int, url string, flags ...string) tally {
	s.t.Helper()
	args := append([]string{"get", "-n", strconv.Itoa(n), "--no-keepalive"}, flags...)
	out, err := s.exec(s.t.Context(), from, append(args, url)...)
	t := parseTally(out)
	if len(t) == 0 {
		s.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return t
}

func parseTally(out string) tally {
	t := tally{}
	for line := range strings.Lines(out) {
		number, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.Atoi(number); err == nil {
			t[kind] += n
		}
	}
	return t
}

// traffic asks steadily until it is stopped; what it saw comes then.
type traffic struct {
	stop    context.CancelFunc
	results chan tally
}

// steady starts traffic of about 50 requests a second, each on a connection of its own.
func (s *space) steady(from, url string, flags ...string) *traffic {
	ctx, cancel := context.WithCancel(s.t.Context())
	t := &traffic{stop: cancel, results: make(chan tally, 1)}
	go func() {
		sum := tally{}
		for ctx.Err() == nil {
			args := append([]string{"get", "-n", "25", "--interval", "20ms", "--no-keepalive", "--timeout", "10s"}, flags...)
			out, err := s.exec(context.WithoutCancel(ctx), from, append(args, url)...)
			batch := parseTally(out)
			for kind, n := range batch {
				sum[kind] += n
			}
			if len(batch) == 0 && err != nil {
				sum["error exec: "+err.Error()]++
			}
		}
		t.results <- sum
	}()
	return t
}

// end stops the traffic and returns what came of it.
func (t *traffic) end() tally {
	t.stop()
	return <-t.results
}

// logLine is a line of a proxy's access log.
type logLine map[string]any

func (l logLine) str(key string) string {
	v, _ := l[key].(string)
	return v
}

// nodeLog reads the access log of all node proxies about one pod.
func nodeLog(ctx context.Context, after time.Time, pod *corev1.Pod) ([]logLine, error) {
	var proxies corev1.PodList
	if err := world.client.List(ctx, &proxies, client.InNamespace(names.SystemNamespace),
		client.MatchingLabels{names.LabelComponent: names.ComponentNode}); err != nil {
		return nil, err
	}
	var out []logLine
	for _, p := range proxies.Items {
		if p.Spec.NodeName != pod.Spec.NodeName {
			continue
		}
		start := metav1.NewTime(after)
		raw, err := world.clientset.CoreV1().Pods(p.Namespace).GetLogs(
			p.Name, &corev1.PodLogOptions{Container: "envoy", SinceTime: &start}).DoRaw(ctx)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(raw) {
			var l logLine
			if json.Unmarshal(line, &l) == nil && l.str("pod") == pod.Namespace+"/"+pod.Name {
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// logged waits for a line about a pod with all these fields.
func logged(s *space, after time.Time, pod corev1.Pod, fields map[string]string) {
	s.t.Helper()
	eventually.Passes(s.t, fmt.Sprintf("a line of the access log with %v", fields), func(look require.TestingT) {
		lines, err := nodeLog(s.t.Context(), after, &pod)
		require.NoError(look, err)
		found := false
		for _, l := range lines {
			match := true
			for k, v := range fields {
				match = match && l.str(k) == v
			}
			found = found || match
		}
		require.True(look, found, "a line with %v; there are %v", fields, lines)
	})
}

// overMTLS waits until the log of a pod's node says that a caller reached it over mTLS.
func overMTLS(s *space, after time.Time, pod corev1.Pod, source, destination string) {
	s.t.Helper()
	logged(s, after, pod, map[string]string{"direction": "inbound-mtls", "source": source, "destination": destination})
}
