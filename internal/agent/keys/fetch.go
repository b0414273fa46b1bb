// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

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
		return nil, errNoURI
	}
	u.Scheme, u.User, u.Fragment = "http", nil, "" // the cluster decides on TLS
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errNoURI
	}
	req.Header.Set(names.HeaderCluster, s.Cluster)
	req.Header.Set("User-Agent", names.Domain)
	res, err := p.RoundTrip(req)
	if err != nil {
		return nil, unanswered(err, s.Timeout)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK { // the server's own words may say anything
		said := fmt.Sprint(res.StatusCode, " ", http.StatusText(res.StatusCode))
		return nil, fmt.Errorf("the answer is %s", strings.TrimSpace(said))
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, model.MostKeys+1))
	if err != nil {
		return nil, unanswered(err, s.Timeout)
	}
	if len(body) > model.MostKeys {
		return nil, fmt.Errorf("the answer has more than %d bytes", model.MostKeys)
	}
	return body, nil
}

// unanswered says what went wrong without saying of whom: a URI may have secrets in it, and this goes into a status.
func unanswered(err error, after time.Duration) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("there is no answer within %s", after)
	}
	return fmt.Errorf("the proxy gives no answer: %w", err)
}

// shown is a URI as it may be logged: a query may have secrets in it, too.
func shown(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}

// certificate is how the values begin of the other form in which some servers give keys: certificates by their names.
const certificate = "-----BEGIN CERTIFICATE-----"

var (
	errNoURI  = errors.New("the URI can't be read")
	errNoKeys = errors.New("the answer has no keys in it")
	errSecret = errors.New("the answer has a secret key in it, and whoever can ask for it could issue tokens: " +
		"the server must give public keys only")
)

// unusable says why proxies can't verify tokens with an answer, or must not; nil if they can: what they can't must not
// take the place of what they can. It is read as strictly as JSON can be, by exact names and none twice, so that Envoy
// finds no other keys in it.
func unusable(body []byte) error {
	var set jose.JSONWebKeySet
	if json.Unmarshal(body, &set) == nil && len(set.Keys) > 0 {
		err := errNoKeys
		for n := range set.Keys {
			switch key := &set.Keys[n]; {
			case key.Key != nil && !key.IsPublic():
				return errSecret
			case key.Valid():
				err = nil
			}
		}
		return err
	}
	var named map[string]string
	if json.Unmarshal(body, &named) != nil || len(named) == 0 {
		return errNoKeys
	}
	for _, v := range named {
		if !strings.HasPrefix(strings.TrimSpace(v), certificate) {
			return errNoKeys
		}
	}
	return nil
}
