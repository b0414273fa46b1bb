// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// skew is by how much the operator's clock may be ahead of the API server's.
const skew = 10 * time.Minute

// claims are those of a service account's token that the API server looks at, too. Nothing is ever granted for them:
// whoever sends a token writes them.
type claims struct {
	Expires    int64    `json:"exp"`
	Audience   audience `json:"aud"`
	Subject    string   `json:"sub"`
	Kubernetes struct {
		Pod  struct{ Name, UID string }
		Node struct{ Name string }
	} `json:"kubernetes.io"`
}

// audience is a string or a list of them (RFC 7519).
type audience []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audience) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*a = make(audience, 1)
		return json.Unmarshal(b, &(*a)[0])
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// claimsOf reads a token without verifying it.
func claimsOf(token string) (claims, error) {
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[2] == "" {
		return c, errors.New("it is not a JWT, as service account tokens are")
	}
	for i, into := range []any{&struct{}{}, &c} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			return c, errors.New("it is a JWT that can't be parsed")
		}
	}
	return c, nil
}

// hopeless says why the API server, or verdict, is bound to reject a token with these claims; nil if it may pass.
func (c claims) hopeless(want string, now time.Time) error {
	switch {
	case !slices.Contains(c.Audience, want):
		return errors.New(`it isn't for audience "` + want + `"`)
	case !strings.HasPrefix(c.Subject, userPrefix):
		return errors.New("it isn't that of a service account")
	case c.Kubernetes.Pod.Name == "" || c.Kubernetes.Pod.UID == "" || c.Kubernetes.Node.Name == "":
		return errNotBound
	case time.Unix(c.Expires, 0).Add(skew).Before(now):
		return errors.New("it expired long ago")
	}
	return nil
}

var errNotBound = errors.New("it isn't bound to a pod on a node; use a projected token of the pod (Kubernetes 1.32 " +
	"or later)")
