// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sds makes the certificates of a node's or a waypoint's proxy: it creates keys in memory, has the operator
// sign them, renews them early, and hands them to the proxy as Envoy secrets. Private keys never leave the process but
// for the proxy's Unix socket.
package sds

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/fairway-mesh/fairway/internal/agent/control"
	"github.com/fairway-mesh/fairway/internal/identity"
)

const (
	// maxAnswerBytes bounds what is read of an answer: a chain and a bundle.
	maxAnswerBytes = 1 << 20
	requestTimeout = 15 * time.Second
	// signTimeout is longer: the operator may have to ask an issuer, and a request that is given up on is signed in vain.
	signTimeout = 70 * time.Second
	dialTimeout = 5 * time.Second
)

// lost notices within 15 s that the operator's node is gone, however long an answer may take.
var lost = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 2}

// errRefused means that the operator answered and won't grant the request as things stand (4xx); it may later, when it
// has learnt of a pod.
var errRefused = errors.New("the operator refuses")

// Signed is what the operator answers to a request.
type Signed struct {
	// Chain is PEM, leaf first.
	Chain    []byte
	NotAfter time.Time
	Bundle   identity.Bundle
}

// Client speaks to the operator's HTTPS interface. It is safe for concurrent use.
type Client struct {
	url      string
	operator *control.Operator
	http     *http.Client
}

// NewClient makes a client for an operator at host:port.
func NewClient(addr string, operator *control.Operator) *Client {
	c := &Client{url: "https://" + addr, operator: operator}
	c.http = &http.Client{
		Timeout:       signTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                 nil, // a token must not go through a proxy that the environment names
			DialTLSContext:        c.dial,
			MaxConnsPerHost:       4,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       20 * time.Second, // before the operator ends it
			ResponseHeaderTimeout: signTimeout,
		},
	}
	return c
}

// Trusted is the newest bundle known, whoever it came from.
func (c *Client) Trusted() (identity.Bundle, error) { return c.operator.Trusted() }

func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	cfg, err := c.operator.TLS()
	if err != nil {
		return nil, err
	}
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout, KeepAliveConfig: lost}, Config: cfg}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the operator: %w", err)
	}
	return conn, nil
}

// Sign has a request signed for a SPIFFE ID; held is what there is of it.
func (c *Client) Sign(ctx context.Context, csr []byte, id string, held identity.Held) (Signed, error) {
	body, err := json.Marshal(identity.SignRequest{CSR: string(csr), Identity: id, Held: held})
	if err != nil {
		return Signed{}, err
	}
	answer, _, err := c.call(ctx, http.MethodPost, identity.PathSign, body, nil)
	if err != nil {
		return Signed{}, err
	}
	var r identity.SignResponse
	if err := json.Unmarshal(answer, &r); err != nil {
		return Signed{}, fmt.Errorf("the operator's answer isn't JSON: %w", err)
	}
	b, err := identity.ParseBundle([]byte(r.TrustBundle))
	if err != nil {
		return Signed{}, fmt.Errorf("the operator's answer: %w", err)
	}
	c.operator.Learn(b)
	return Signed{Chain: []byte(r.CertificateChain), NotAfter: r.NotAfter, Bundle: b}, nil
}

// Failing tells the operator what isn't renewed.
func (c *Client) Failing(ctx context.Context, failing []identity.Failing) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(identity.FailingRequest{Failing: failing})
	if err != nil {
		return err
	}
	_, _, err = c.call(ctx, http.MethodPost, identity.PathFailing, body, nil)
	return err
}

// Bundle fetches the trust bundle if its generation isn't the one that the caller has; fresh tells whether it did.
func (c *Client) Bundle(ctx context.Context, have int64) (b identity.Bundle, fresh bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	header := http.Header{"If-None-Match": {`"` + strconv.FormatInt(have, 10) + `"`}}
	answer, code, err := c.call(ctx, http.MethodGet, identity.PathTrustBundle, nil, header)
	if err != nil || code == http.StatusNotModified {
		return identity.Bundle{}, false, err
	}
	if b, err = identity.ParseBundle(answer); err != nil {
		return identity.Bundle{}, false, fmt.Errorf("the operator's answer: %w", err)
	}
	c.operator.Learn(b)
	return b, true, nil
}

func (c *Client) call(ctx context.Context, method, path string, body []byte, header http.Header) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if method == http.MethodPost { // what is read without a token shouldn't be sent one
		token, err := c.operator.Token()
		if err != nil {
			return nil, 0, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, 0, fmt.Errorf("read the operator's answer: %w", err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, resp.StatusCode, answerError(resp.StatusCode, answer)
	}
	return answer, resp.StatusCode, nil
}

func answerError(code int, body []byte) error {
	var e identity.ErrorResponse
	if err := json.Unmarshal(body, &e); err != nil || e.Error == "" {
		e.Error = http.StatusText(code)
	}
	if code < http.StatusInternalServerError && code != http.StatusTooManyRequests {
		return fmt.Errorf("%w (%d): %s", errRefused, code, e.Error)
	}
	return fmt.Errorf("the operator can't answer (%d): %s", code, e.Error)
}
