package io.github.msallogout;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON as RFC 8259 has it: objects are {@link Map}s in their order, arrays {@link List}s, and a number stays as it was
 * written. Of its own, since MSAL4J's versions bring different libraries for it.
 */
final class Json {
    /** A number as it stands in the text: what another library wrote is written back unchanged. */
    record Literal(String text) {}

    // MSAL's cache has three levels; text that is deeper is no cache, and must not cost a stack.
    private static final int MAX_DEPTH = 64;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Reads a text that is one JSON object; null where it is anything else. */
    static Map<String, Object> parseObject(String text) {
        try {
            return asObject(parse(text));
        } catch (IllegalArgumentException notJson) {
            return null;
        }
    }

    /** @throws IllegalArgumentException where the text is not JSON */
    static Object parse(String text) {
        Json reader = new Json(text);
        Object value = reader.readValue(0);
        reader.skipSpace();
        if (reader.at != text.length()) {
            throw reader.unexpected();
        }
        return value;
    }

    /** The value as an object, or null where it is none. */
    @SuppressWarnings("unchecked")
    static Map<String, Object> asObject(Object value) {
        return value instanceof Map ? (Map<String, Object>) value : null;
    }

    /** Writes it without white space, as JavaScript's {@code JSON.stringify} does, byte for byte. */
    static String write(Object value) {
        StringBuilder out = new StringBuilder(256);
        append(out, value);
        return out.toString();
    }

    private static void append(StringBuilder out, Object value) {
        if (value instanceof String string) {
            appendString(out, string);
        } else if (value instanceof Map<?, ?> object) {
            out.append('{');
            boolean isFirst = true;
            for (Map.Entry<?, ?> member : object.entrySet()) {
                if (!isFirst) {
                    out.append(',');
                }
                isFirst = false;
                appendString(out, (String) member.getKey());
                out.append(':');
                append(out, member.getValue());
            }
            out.append('}');
        } else if (value instanceof List<?> array) {
            out.append('[');
            for (int i = 0; i < array.size(); i += 1) {
                if (i > 0) {
                    out.append(',');
                }
                append(out, array.get(i));
            }
            out.append(']');
        } else if (value instanceof Literal literal) {
            out.append(literal.text());
        } else {
            out.append(value); // null, true, false
        }
    }

    private static void appendString(StringBuilder out, String string) {
        out.append('"');
        for (int i = 0; i < string.length(); i += 1) {
            char c = string.charAt(i);
            switch (c) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\b' -> out.append("\\b");
                case '\f' -> out.append("\\f");
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                default -> {
                    if (c < ' ' || isLoneSurrogate(string, i)) {
                        out.append(String.format("\\u%04x", (int) c));
                    } else {
                        out.append(c);
                    }
                }
            }
        }
        out.append('"');
    }

    private static boolean isLoneSurrogate(String string, int i) {
        char c = string.charAt(i);
        if (Character.isHighSurrogate(c)) {
            return i + 1 == string.length() || !Character.isLowSurrogate(string.charAt(i + 1));
        }
        return Character.isLowSurrogate(c) && (i == 0 || !Character.isHighSurrogate(string.charAt(i - 1)));
    }

    private Object readValue(int depth) {
        if (depth > MAX_DEPTH) {
            throw unexpected();
        }
        skipSpace();
        return switch (peek()) {
            case '{' -> readObject(depth);
            case '[' -> readArray(depth);
            case '"' -> readString();
            case 't' -> readWord("true", Boolean.TRUE);
            case 'f' -> readWord("false", Boolean.FALSE);
            case 'n' -> readWord("null", null);
            default -> readNumber();
        };
    }

    private Map<String, Object> readObject(int depth) {
        Map<String, Object> object = new LinkedHashMap<>();
        at += 1;
        skipSpace();
        if (skip('}')) {
            return object;
        }
        do {
            skipSpace();
            String name = readString();
            skipSpace();
            expect(':');
            object.put(name, readValue(depth + 1));
            skipSpace();
        } while (skip(','));
        expect('}');
        return object;
    }

    private List<Object> readArray(int depth) {
        List<Object> array = new ArrayList<>();
        at += 1;
        skipSpace();
        if (skip(']')) {
            return array;
        }
        do {
            array.add(readValue(depth + 1));
            skipSpace();
        } while (skip(','));
        expect(']');
        return array;
    }

    private String readString() {
        expect('"');
        int start = at;
        StringBuilder decoded = null; // most strings need none
        while (true) {
            char c = peek();
            at += 1;
            if (c == '"') {
                return decoded == null ? text.substring(start, at - 1) : decoded.toString();
            }
            if (c < ' ') {
                throw unexpected();
            }
            if (c == '\\') {
                if (decoded == null) {
                    decoded = new StringBuilder(text.substring(start, at - 1));
                }
                decoded.append(readEscape());
            } else if (decoded != null) {
                decoded.append(c);
            }
        }
    }

    private char readEscape() {
        char c = peek();
        at += 1;
        return switch (c) {
            case '"', '\\', '/' -> c;
            case 'b' -> '\b';
            case 'f' -> '\f';
            case 'n' -> '\n';
            case 'r' -> '\r';
            case 't' -> '\t';
            case 'u' -> readHex();
            default -> throw unexpected();
        };
    }

    private char readHex() {
        int code = 0;
        for (int i = 0; i < 4; i += 1) {
            char c = peek();
            int digit = c < 128 ? Character.digit(c, 16) : -1;
            if (digit < 0) {
                throw unexpected();
            }
            code = code * 16 + digit;
            at += 1;
        }
        return (char) code;
    }

    private Object readWord(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw unexpected();
        }
        at += word.length();
        return value;
    }

    private Literal readNumber() {
        int start = at;
        skip('-');
        if (!skip('0')) {
            readDigits();
        }
        if (skip('.')) {
            readDigits();
        }
        if (skip('e') || skip('E')) {
            if (!skip('+')) {
                skip('-');
            }
            readDigits();
        }
        return new Literal(text.substring(start, at));
    }

    private void readDigits() {
        int start = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at += 1;
        }
        if (at == start) {
            throw unexpected();
        }
    }

    private void skipSpace() {
        while (at < text.length() && " \t\n\r".indexOf(text.charAt(at)) >= 0) {
            at += 1;
        }
    }

    private boolean skip(char c) {
        boolean isNext = at < text.length() && text.charAt(at) == c;
        at += isNext ? 1 : 0;
        return isNext;
    }

    private void expect(char c) {
        if (!skip(c)) {
            throw unexpected();
        }
    }

    private char peek() {
        if (at >= text.length()) {
            throw unexpected();
        }
        return text.charAt(at);
    }

    private IllegalArgumentException unexpected() {
        return new IllegalArgumentException("no JSON at character " + at); // never a piece of the text: it holds tokens
    }
}
