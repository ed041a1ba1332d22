// Package policy holds who may publish and subscribe where, as topic templates.
package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Policy is the plugin's configuration.
type Policy struct {
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`
}

// Current is the policy in force. Each instance of the plugin has its own.
var Current Policy

// Load reads the configuration. The error names the key.
func Load(config string) error {
	var loaded Policy
	decoder := json.NewDecoder(strings.NewReader(config))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&loaded); err != nil {
		return err
	}
	for key, templates := range map[string][]string{"publish": loaded.Publish, "subscribe": loaded.Subscribe} {
		for index, template := range templates {
			if err := check(template); err != nil {
				return fmt.Errorf("%s[%d]: '%s': %w", key, index, template, err)
			}
		}
	}
	Current = loaded
	return nil
}

func check(template string) error {
	levels := strings.Split(template, "/")
	for index, level := range levels {
		switch {
		case template == "":
			return fmt.Errorf("it is empty")
		case strings.Contains(level, "#") && (level != "#" || index != len(levels)-1):
			return fmt.Errorf("'#' must be the last level and stand alone in it")
		case strings.Contains(level, "+") && level != "+":
			return fmt.Errorf("'+' must stand alone in its level")
		case strings.ContainsAny(level, "{}") && level != "{principal}" && level != "{client_id}":
			return fmt.Errorf("a level is text, '+', '#', '{principal}' or '{client_id}'")
		}
	}
	return nil
}

// Covers says whether one of the templates, filled in for this client, covers everything that asked stands for.
// A topic stands for itself, a filter for all topics that it matches.
func Covers(templates []string, principal, clientID, asked string) bool {
	for _, template := range templates {
		if covers(strings.Split(template, "/"), principal, clientID, strings.Split(asked, "/")) {
			return true
		}
	}
	return false
}

func covers(template []string, principal, clientID string, asked []string) bool {
	for index, level := range template {
		if level == "#" {
			return !hidden(template, asked)
		}
		if index >= len(asked) {
			return false
		}
		switch level {
		case "+":
			if asked[index] == "#" || hidden(template, asked) {
				return false
			}
		case "{principal}":
			if asked[index] != principal {
				return false
			}
		case "{client_id}":
			if asked[index] != clientID {
				return false
			}
		default:
			if asked[index] != level {
				return false
			}
		}
	}
	// `a` is all of `a`, and of `a/#` it is not.
	return len(asked) == len(template)
}

// Topics that begin with '$' are not matched by a wildcard at the first level.
func hidden(template, asked []string) bool {
	return strings.HasPrefix(asked[0], "$") && (template[0] == "+" || template[0] == "#")
}
