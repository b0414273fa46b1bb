// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
)

// proxy is an Envoy through which servers of keys are asked.
type proxy struct{ *http.Transport }

func through(socket string) proxy {
	return proxy{&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	}}
}

// fetch asks a server once. A redirection is followed by nobody: it would lead where no policy has said.
func (p proxy) fetch(ctx context.Context, s authentication.KeySource) ([]byte, error) {
	u, err := url.Parse(s.URI)
	if err != nil {
		return nil, fmt.Errorf("the URI of keys: %w", err)
	}
	u.Scheme, u.User, u.Fragment = "http", nil, "" // the cluster decides on TLS
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("the URI of keys: %w", err)
	}
	req.Header.Set(names.HeaderCluster, s.Cluster)
	req.Header.Set("User-Agent", names.Domain)
	res, err := p.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask for keys: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for keys: the answer is %s", res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, model.MostKeys+1))
	if err != nil {
		return nil, fmt.Errorf("ask for keys: %w", err)
	}
	if len(body) > model.MostKeys {
		return nil, fmt.Errorf("ask for keys: the answer has more than %d bytes", model.MostKeys)
	}
	return body, nil
}

// certificate is how the values begin of the other form in which some servers give keys: certificates by their names.
const certificate = "-----BEGIN CERTIFICATE-----"

// isSet tells whether proxies can verify tokens with an answer: what they can't must not take the place of what they
// can.
func isSet(body []byte) bool {
	var set jose.JSONWebKeySet
	if json.Unmarshal(body, &set) == nil && len(set.Keys) > 0 {
		for n := range set.Keys {
			if set.Keys[n].Valid() {
				return true
			}
		}
		return false
	}
	var named map[string]string
	if json.Unmarshal(body, &named) != nil || len(named) == 0 {
		return false
	}
	for _, v := range named {
		if !strings.HasPrefix(strings.TrimSpace(v), certificate) {
			return false
		}
	}
	return true
}
