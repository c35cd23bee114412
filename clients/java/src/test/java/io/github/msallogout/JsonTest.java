package io.github.msallogout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class JsonTest {
    @ParameterizedTest
    @ValueSource(
            strings = {
                "{}",
                "{\"a\":[],\"b\":{\"c\":null},\"d\":true,\"e\":false}",
                "[1,-0,0.5,1e9,-1.25E-3,12345678901234567890123]",
                "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\"",
                "\"ä € 𝄞 \u2028\"",
                "\"\\ud834\""
            })
    void whatIsReadIsWrittenAsItWas(String text) {
        assertEquals(text, Json.write(Json.parse(text)));
    }

    @Test
    void escapesAndWhiteSpaceAreRead() {
        assertEquals(Map.of("a/b", List.of("é", new Json.Literal("1"))), Json.parse(" {\t\"a\\/b\" :\r\n[ \"\\u00E9\" , 1 ] } "));
        assertEquals("\"𝄞\"", Json.write(Json.parse("\"\\ud834\\udd1e\"")));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "", " ", "{", "[", "]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "[1,]", "[1 2]", "01", "1.", ".5", "1e",
                "+1", "NaN", "tru", "nul", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"", "{} {}", "'a'", "\"\\uＡＢＣＤ\""
            })
    void whatIsNoJsonIsNone(String text) {
        assertThrows(IllegalArgumentException.class, () -> Json.parse(text));
        assertNull(Json.parseObject(text));
    }

    @Test
    void aTextThatIsDeepOrNoObjectIsNoCache() {
        assertNull(Json.parseObject("[]"));
        assertNull(Json.parseObject("{\"a\":".repeat(100_000)));
        assertNotNull(Json.parseObject("{\"a\":".repeat(60) + "1" + "}".repeat(60)));
    }

    @Test
    void everyPieceOfATextThatIsCutIsNoneAndNoFault() {
        String text = "{\"a\":[1,\"\\u00e9x\",{\"b\":null}],\"c\":-1.5e3}";
        for (int end = 0; end < text.length(); end += 1) {
            assertNull(Json.parseObject(text.substring(0, end)));
        }
        assertNotNull(Json.parseObject(text));
    }
}
