// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// JWTAuthentication is about the JSON Web Tokens of requests. A request that carries several tokens is let in only if
// all of them are good for one provider, and one that carries a token in a way that can be read otherwise is refused.
type JWTAuthentication struct {
	// Who issues tokens that are good. A token must be good for one of them.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Providers []JWTProvider `json:"providers"`

	// Whether a request without a token is refused, with 401. If false, it passes as nobody: no claim is known of it. A
	// token that isn't good is refused in any case.
	// +optional
	// +kubebuilder:default=true
	Required *bool `json:"required,omitempty"`
}

// JWTProvider issues tokens.
//
// +kubebuilder:validation:XValidation:rule="!has(self.forward) || self.forward || !has(self.fromCookies)",message="a token in a cookie can't be taken out of the request: set forward to true"
type JWTProvider struct {
	// Name of the provider, among those of the policy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// What claim iss of the tokens must be.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Issuer string `json:"issuer"`

	// Audiences, one of which must be in claim aud of the tokens. Without the field tokens for anybody are good, also
	// those that were issued for other applications.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	Audiences []string `json:"audiences,omitempty"`

	// The keys that tokens are signed with.
	// +required
	JWKS JWKS `json:"jwks"`

	// Headers that tokens are in. Default: Authorization with the prefix "Bearer ", unless fromParams or fromCookies is
	// set.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	FromHeaders []JWTHeader `json:"fromHeaders,omitempty"`

	// Parameters of the query that tokens are in. Who writes URLs down writes down the tokens.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9_.-]+$`
	FromParams []string `json:"fromParams,omitempty"`

	// Cookies that tokens are in.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9_.-]+$`
	FromCookies []string `json:"fromCookies,omitempty"`

	// Whether the application gets the token, too. Default: false, but true where fromCookies is set.
	// +optional
	Forward *bool `json:"forward,omitempty"`

	// Claims that the application gets as headers. No caller can set these headers.
	// +optional
	// +listType=map
	// +listMapKey=header
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	ClaimsToHeaders []JWTClaimHeader `json:"claimsToHeaders,omitempty"`
}

// JWTHeader is a header that a token is in.
type JWTHeader struct {
	// Name of the header.
	// +required
	Name JWTHeaderName `json:"name"`

	// What is before the token, such as "Bearer ".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]* ?$`
	ValuePrefix string `json:"valuePrefix,omitempty"`
}

// JWTHeaderName is the name of a header, none of those that say where a request goes or who sends it. It has five
// hyphens and underscores at most: some applications take one for the other, so all spellings are refused.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`
// +kubebuilder:validation:XValidation:rule="!(self.lowerAscii() in ['host', 'connection', 'content-length', 'cookie', 'forwarded', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'via']) && !self.lowerAscii().startsWith('x-forwarded-') && !self.lowerAscii().startsWith('x-envoy-') && !self.lowerAscii().startsWith('x-fairway-')",message="this header has another meaning: use one of your own"
type JWTHeaderName string

// JWTClaimHeader is a claim that the application gets as a header.
type JWTClaimHeader struct {
	// Name of the claim; that of a nested one has dots, as in realm_access.level. Texts, numbers, true and false are
	// written as they are, lists and objects as base64 of their JSON.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Claim string `json:"claim"`

	// Name of the header.
	// +required
	Header JWTHeaderName `json:"header"`
}

// JWKS is a set of public keys (RFC 7517); exactly one of the fields is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.inline) != has(self.remote)",message="set exactly one of inline and remote"
type JWKS struct {
	// The set itself, in JSON.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	Inline *string `json:"inline,omitempty"`

	// Where each proxy of the waypoint fetches the set.
	// +optional
	Remote *RemoteJWKS `json:"remote,omitempty"`
}

// RemoteJWKS is a set of keys, of 64 KiB at most, that proxies fetch by HTTP. Until they have it, requests with tokens
// of the provider are refused; once they have it, they use it for as long as the server can't be asked.
type RemoteJWKS struct {
	// What the server is asked for. Host and path are sent to it; where it is, says backendRef.
	// +required
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^https?://[^/?#\s]+[^\s]*$`
	URI string `json:"uri"`

	// The port of the Service that answers. It is spoken to in HTTP, inside mTLS where its pods are in the mesh, and in
	// TLS where a BackendTLSPolicy says so, whatever the scheme of the URI. In another namespace, a ReferenceGrant must
	// allow AuthenticationPolicies of this namespace to refer to it.
	// +required
	BackendRef gwv1.BackendObjectReference `json:"backendRef"`

	// How long until the set is fetched again, if no token comes before whose key isn't among them. What is fetched before
	// holds until something else is. Default 5m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="cacheDuration must be from 1s to 24h"
	CacheDuration *metav1.Duration `json:"cacheDuration,omitempty"`

	// How long to wait for an answer. Default 5s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(s|ms)){1,2}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1m')",message="timeout must be from 100ms to 1m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}
