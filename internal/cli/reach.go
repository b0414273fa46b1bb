// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// What is read of one answer, at most. Who answers need not be what it is taken for, and several are asked at a time.
const (
	// maxDump is for configurations and lists; those of a large mesh have some tens of MiB.
	maxDump = 64 << 20
	// maxFacts is for the few facts of an agent.
	maxFacts = 64 << 10
	// maxComplaint is for why there is no answer.
	maxComplaint = 1 << 10
)

// mostOf is what may come of a path.
func mostOf(path string) int64 {
	switch path {
	case introspect.PathVersion, introspect.PathAgent:
		return maxFacts
	}
	return maxDump
}

// reacher asks the loopback interface of a pod of the mesh.
type reacher interface {
	get(ctx context.Context, pod types.NamespacedName, path string) ([]byte, error)
}

// getJSON decodes what a pod answers.
func getJSON(ctx context.Context, r reacher, pod types.NamespacedName, path string, into any) error {
	data, err := r.get(ctx, pod, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("the answer of pod %s is not JSON: %w", pod, err)
	}
	return nil
}

// forwarder reaches pods with the API server's port-forward (pods/portforward, verb create). It opens no port here: the
// HTTP connection runs in the stream itself.
type forwarder struct{ config *rest.Config }

func (f *forwarder) get(ctx context.Context, pod types.NamespacedName, path string) ([]byte, error) {
	tunnel, err := f.dial(ctx, pod)
	if err != nil {
		return nil, fmt.Errorf("port-forward to pod %s: %w", pod, err)
	}
	defer func() { _ = tunnel.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = tunnel.Close() })
	defer stop()
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return tunnel, nil },
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxFacts,
	}}
	address := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(names.PortAdmin)) + path
	data, err := fetch(ctx, client, address, mostOf(path))
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", pod, firstOf(ctx.Err(), tunnel.remoteError(), err))
	}
	return data, nil
}

// firstOf returns the first error: they are ordered by how much they explain.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch reads no more than most bytes of an answer. One that has more is an error, since a part of it would say
// something else.
func fetch(ctx context.Context, client *http.Client, address string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) { // as it is, it would be taken for one of the API server
		return nil, fmt.Errorf("there is no answer: %w", wrapped.Err)
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(res.Body, maxComplaint))
		return nil, errors.New(oneLine(fmt.Sprintf("%d %s: %s", res.StatusCode, http.StatusText(res.StatusCode), why)))
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > most:
		return nil, fmt.Errorf("the answer has more than %d KiB, which is too much", most>>10)
	}
	return data, nil
}

// dial opens a stream to the loopback interface in the pod: over a websocket, or SPDY where the API server has none.
func (f *forwarder) dial(ctx context.Context, pod types.NamespacedName) (*tunnel, error) {
	target, err := f.url(pod)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, f.config)
	if err != nil {
		return nil, err
	}
	dialer := portforward.NewFallbackDialerForStreaming(websocket, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	type dialled struct {
		tunnel *tunnel
		err    error
	}
	done := make(chan dialled, 1)
	go func() { // Dial knows no context
		t, err := open(dialer)
		if err == nil && ctx.Err() != nil {
			_ = t.Close()
		}
		done <- dialled{t, err}
	}()
	select {
	case d := <-done:
		return d.tunnel, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *forwarder) url(pod types.NamespacedName) (*url.URL, error) {
	base, _, err := rest.DefaultServerUrlFor(f.config)
	if err != nil {
		return nil, err
	}
	return base.JoinPath("api", "v1", "namespaces", pod.Namespace, "pods", pod.Name, "portforward"), nil
}

// open makes the pair of streams of one forwarded connection (protocol portforward.k8s.io).
func open(dialer httpstream.Dialer) (*tunnel, error) {
	conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(names.PortAdmin))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	errs, err := conn.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = errs.Close() // nothing is ever written to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	t := &tunnel{Stream: data, conn: conn, failure: make(chan string, 1)}
	go func() {
		text, _ := io.ReadAll(io.LimitReader(errs, 4096))
		t.failure <- strings.TrimSpace(string(text))
	}()
	return t, nil
}

// tunnel is a forwarded connection as a net.Conn. Deadlines are not needed: closing it ends everything.
type tunnel struct {
	httpstream.Stream
	conn    httpstream.Connection
	failure chan string
}

// remoteError is kubelet's word on why the connection failed, if there comes one soon.
func (t *tunnel) remoteError() error {
	select {
	case text := <-t.failure:
		if text != "" {
			return errors.New(text)
		}
	case <-time.After(200 * time.Millisecond):
	}
	return nil
}

func (t *tunnel) Close() error                     { return t.conn.Close() }
func (t *tunnel) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (t *tunnel) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (t *tunnel) SetDeadline(time.Time) error      { return nil }
func (t *tunnel) SetReadDeadline(time.Time) error  { return nil }
func (t *tunnel) SetWriteDeadline(time.Time) error { return nil }
