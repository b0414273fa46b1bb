// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package resets

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/names"
)

// askTimeout bounds one question to the node's agent.
const askTimeout = 10 * time.Second

// Asker is the waypoint's side: it has the node's agent do what connections.Kernel does. Make it with NewAsker.
type Asker struct{ client *http.Client }

// NewAsker asks in the network namespace that it is in.
func NewAsker() *Asker {
	dialer := &net.Dialer{}
	return &Asker{&http.Client{Timeout: askTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", names.ResetsSocket)
		},
		DisableKeepAlives: true,
	}}}
}

// Netns implements connections.Places: a waypoint has one pod, and the agent is in it.
func (*Asker) Netns(string) []string { return []string{"its own"} }

// EndProxied implements connections.Kernel.
func (a *Asker) EndProxied(_ string, connections []capture.Proxied) (ended int, err error) {
	for some := range slices.Chunk(connections, mostAtOnce) {
		n, err := a.ask(some)
		if ended += n; err != nil {
			return ended, fmt.Errorf("ask the agent of this node: %w", err)
		}
	}
	return ended, nil
}

func (a *Asker) ask(connections []capture.Proxied) (ended int, err error) {
	body, err := json.Marshal(connections)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://node"+pathReset,
		bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return ended, json.Unmarshal(text, &ended)
}
